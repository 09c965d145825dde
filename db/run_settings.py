"""The settings, tags and devices of runs as rows that a search compares (`db.models.RunSetting`)."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run, RunSetting
from db.store import bulk
from lossguard.vocabulary.run_search import DEVICE, MAX_TERM, SETTING, TAG, tags_of

COLUMNS = ("run_pk", "key", "name", "position", "text", "number")
CONSTANTS = {True: "true", False: "false", None: "null"}
"""Texts of values that are neither a number nor a text."""


def save(session: Session, *runs: Run) -> None:
    """Replace the rows of runs, after any change of their `config`, `tags` or `devices`."""
    session.flush()
    for pks in bulk.key_parts(run.pk for run in runs):
        session.execute(sa.delete(RunSetting).where(RunSetting.run_pk.in_(pks)))
    if rows := [(run.pk, *row) for run in runs for row in _rows(run)]:
        columns = map(list, zip(*rows, strict=True))
        bulk.insert(session, RunSetting, dict(zip(COLUMNS, columns, strict=True)))


def _rows(run: Run) -> Iterator[tuple[str, str, int, str | None, float | None]]:
    named = {SETTING + path: values or [{}] for path, values in settings(run.config).items()}
    named |= {TAG: tags_of(run.tags, run.config), DEVICE: run.devices}
    for name, values in named.items():
        if len(name) <= MAX_TERM:  # no search can have a longer one
            for position, value in enumerate(values):
                yield key_of(name), name, position, *_compared(value)


def key_of(name: str) -> str:
    """Return the last component of a path."""
    return name.rpartition(".")[2]


def settings(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values by path. The elements of a list are values of the list's path; an empty list has none."""
    paths: dict[str, list[Any]] = {}
    _collect(config, "", paths)
    return paths


def _collect(value: Any, path: str, paths: dict[str, list[Any]]) -> None:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            _collect(each, f"{path}.{key}" if path else key, paths)
    elif isinstance(value, list):
        paths.setdefault(path, [])
        for each in value:
            _collect(each, path, paths)
    elif path:
        paths.setdefault(path, []).append(value)


def _compared(value: Any) -> tuple[str | None, float | None]:
    """Return the text and the number that a search compares; neither for an empty section."""
    if value is None or isinstance(value, bool):
        return CONSTANTS[value], None
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return None, float(value)
    return None if isinstance(value, dict) else str(value), None
