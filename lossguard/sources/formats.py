"""The formats of stored runs, and which of them a path holds.

A reader is a module of `lossguard.sources.readers` that is in `FORMATS`, with `WHAT`, its sources for people in the
plural, and `runs_in(path)`. That yields the runs at or below a file or folder, each as a SourceRun whose rows are not
read yet. It raises BadSource for something of this format that cannot be read (a package is missing, too). A reader in
WATCHED also has `places_in(path)` and `follow(place, joiner)`.
"""

import errno
import os
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossguard.sources.columns import Columns
from lossguard.sources.joining import Joiner
from lossguard.sources.source_run import BadSource, SourceRun, checked, parsing
from lossguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from lossguard.sources.readers.printed_lines import Pattern

    Layout = Columns | Pattern
    """A user's description of the rows of a source: the columns of a table, or the pattern of a line."""

FORMATS: Mapping[str, str] = {
    "csv": "csv_file",
    "jsonl": "jsonl_file",
    "log": "text_logs",
    "mlflow": "mlflow_stores",
    "neptune": "neptune_export",
    "tensorboard": "event_files",
    "trackio": "trackio_sqlite",
    "trainer_state": "trainer_state",
    "wandb": "wandb_offline",
    "wandb-export": "wandb_export",
}
"""Name for `--format` -> module of `lossguard.sources.readers`. It is imported when it is needed, and what it needs,
too."""
WATCHED = ("csv", "jsonl", "log", "tensorboard", "trainer_state")
"""Formats that can be followed while they grow: their modules have `places_in` and `follow`, too."""
STORES = ("mlflow", "neptune", "trackio", "wandb")
"""Formats with folders of their own: the tables and logs in these are no further runs."""
WITH_COLUMNS = ("csv", "jsonl")
"""Formats whose functions take the `Columns` that a user names."""
WITH_PATTERN = ("log",)
"""Formats whose functions take the `Pattern` that a user gives."""


def check(name: str | None, known: Collection[str]) -> None:
    """Raises ConfigurationError for a name that is not among the known ones."""
    if name is not None and name not in known:
        raise ConfigurationError(f"--format {name} must be one of {', '.join(known)}")


def runs_in(path: Path, only: str | None = None, layout: "Layout" = Columns()) -> list[SourceRun]:  # noqa: B008 - frozen
    """The runs at or below `path`, which must have one format; `only`: look for this one.

    Raises ConfigurationError where there is no path or more than one format, and BadSource where there is no run, or
    like the readers.
    """
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist")
    found = {
        name: runs
        for name in _asked(FORMATS, only, layout)
        if (runs := list(checked(_call(name, "runs_in", layout, path), path)))
    }
    if stores := {name: runs for name, runs in found.items() if name in STORES}:
        found = stores
    if len(found) > 1:
        several = ", ".join(f"{_reader(name).WHAT} (runs: {len(runs)})" for name, runs in found.items())
        raise ConfigurationError(
            f"{path} holds {several}: choose one with --format {'|'.join(found)}, or name the folders in it one by one"
        )
    if not found:
        raise BadSource(nothing_found(path, FORMATS, only, layout))
    return next(iter(found.values()))


def places_in(path: Path, only: str | None, layout: "Layout") -> list[tuple[str, Path]]:
    """(format, file or folder) of each source at or below `path` that can be followed."""
    if not path.exists():
        return []
    names = _asked(WATCHED, only, layout)
    with parsing(path):
        return [(name, place) for name in names for place in _call(name, "places_in", layout, path)]


def follow(name: str, place: Path, joiner: Joiner, layout: "Layout") -> Any:
    """The follower of a source that `places_in` found."""
    return _call(name, "follow", layout, place, joiner)


def nothing_found(path: Path, known: Collection[str], only: str | None, layout: "Layout") -> str:
    """A sentence about a path without a run."""
    if path.exists() and not os.access(path, os.R_OK):
        return f"{path} cannot be read ({os.strerror(errno.EACCES)})"
    names = _asked(known, only, layout)
    table = "; --step names the column of steps of a table" if not set(WITH_COLUMNS).isdisjoint(names) else ""
    return f"{path} holds no run to read as {', '.join(names)}{table}"


def _asked(known: Collection[str], only: str | None, layout: "Layout") -> list[str]:
    """The formats to look for: whoever names columns means a table, and whoever gives a pattern a log."""
    possible = known if layout == Columns() else _taking(layout)
    return [name for name in known if only in (None, name) and name in possible]


def _taking(layout: "Layout") -> Collection[str]:
    return WITH_COLUMNS if isinstance(layout, Columns) else WITH_PATTERN


def _reader(name: str) -> Any:
    return import_module(f"lossguard.sources.readers.{FORMATS[name]}")


def _call(name: str, function: str, layout: "Layout", *arguments: Any) -> Any:
    if name in _taking(layout):
        arguments = *arguments, layout
    return getattr(_reader(name), function)(*arguments)
