"""Neptune exports: the Parquet files of neptune-exporter, with a line for each value of each attribute of each run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lossguard.sources.files.parquet_file import batches, column_names, parquet_files_in
from lossguard.sources.rows import StoredScalar, joined
from lossguard.sources.source_run import SourceRun
from lossguard.vocabulary.states import RunState

WHAT = "Neptune exports (Parquet)"
COLUMNS = ("project_id", "run_id", "attribute_path", "attribute_type", "step", "timestamp", "float_value")
VALUES = ("float_value", "int_value", "string_value", "bool_value", "datetime_value", "string_set_value")
SERIES = "float_series"
NAMES = ("sys/name", "sys/custom_run_id", "sys/id")
"""Attributes that name a run, the best first."""


@dataclass(slots=True)
class _Found:
    """A run as far as it has been read."""

    files: list[Path] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    num_values: int = 0


def is_export(names: Sequence[str]) -> bool:
    """Return True if a table with these columns is such an export."""
    return set(COLUMNS) <= set(names)


def runs_in(path: Path) -> Iterator[SourceRun]:
    """A run may be spread over several files, and a file may hold several runs."""
    runs: dict[tuple[str, str], _Found] = {}
    for file in parquet_files_in(path):
        names = column_names(file)
        if is_export(names):
            _read(file, [name for name in VALUES if name in names], runs)
    for (project, run_id), found in runs.items():
        yield _described(project, run_id, found)


def _read(path: Path, values: Sequence[str], runs: dict[tuple[str, str], _Found]) -> None:
    for batch in batches(path, [*COLUMNS[:4], *values]):
        for at, key in enumerate(zip(batch["project_id"], batch["run_id"], strict=True)):
            found = runs.setdefault(key, _Found())
            if found.files[-1:] != [path]:
                found.files.append(path)
            kind = batch["attribute_type"][at]
            if kind == SERIES:
                found.num_values += 1
            elif not kind.endswith("_series"):
                cells = (batch[name][at] for name in values)
                found.attributes[batch["attribute_path"][at]] = next((cell for cell in cells if cell is not None), None)


def _described(project: str, run_id: str, found: _Found) -> SourceRun:
    attributes = {name: value for name, value in found.attributes.items() if value is not None}
    tags = attributes.get("sys/tags") or []
    return SourceRun(
        format="neptune",
        identity=f"{project}/{run_id}",
        name=next((str(attributes[name]) for name in NAMES if attributes.get(name)), run_id),
        place=f"{found.files[0]}, run {run_id}",
        rows=lambda: joined(sorted(_scalars(found.files, project, run_id), key=lambda one: one[:3])),
        project=project.rpartition("/")[2] or None,
        config={name: _plain(value) for name, value in attributes.items() if not name.startswith("sys/")},
        tags=[str(tag) for tag in tags],
        started_at=_seconds(attributes.get("sys/creation_time")),
        ended_at=_seconds(attributes.get("sys/modification_time")),
        state=RunState.FAILED if attributes.get("sys/failed") is True else RunState.FINISHED,
    )


def _scalars(files: Sequence[Path], project: str, run_id: str) -> Iterator[StoredScalar]:
    """The values of the series, attribute by attribute, as they are stored; without those at a fraction of a step."""
    for file in files:
        for batch in batches(file, COLUMNS):
            lines = zip(*(batch[column] for column in COLUMNS), strict=True)
            for of_project, of_run, name, kind, step, time, value in lines:
                is_ours = kind == SERIES and (of_project, of_run) == (project, run_id)
                if is_ours and step is not None and step == int(step) and value is not None:
                    yield StoredScalar(_seconds(time) or 0.0, int(step), name, value)


def _seconds(value: Any) -> float | None:
    return value.timestamp() if isinstance(value, datetime) else None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
