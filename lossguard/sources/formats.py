"""The formats of stored runs, and which of them a path holds.

A reader is a module of this package that satisfies `Format`; add it to `FORMATS`.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from lossguard.errors import ConfigurationError
from lossguard.sources.stored_run import BadSource, StoredRun

FORMATS: Mapping[str, str] = {}
"""Name for `--format` -> module of `lossguard.sources`. It is imported when it is needed, and what it needs, too."""


class Format(Protocol):
    """What a module that reads a format has."""

    WHAT: str
    """For people, in the plural: "TensorBoard event files"."""

    @staticmethod
    def runs_in(path: Path) -> Iterator[StoredRun]:
        """The runs at or below `path`, a file or a folder; none where it has nothing of this format.

        Raises BadSource where there is something of this format that cannot be read (a package that is missing, too).
        """


def check(name: str | None) -> None:
    """Raises ConfigurationError unless `name` is that of a format."""
    if name is not None and name not in FORMATS:
        raise ConfigurationError(f"--format {name} must be one of {', '.join(FORMATS)}")


def readers() -> dict[str, Format]:
    """Name -> reader."""
    return {name: cast(Format, import_module(f"lossguard.sources.{module}")) for name, module in FORMATS.items()}


def runs_in(path: Path, only: str | None = None) -> list[StoredRun]:
    """The runs at or below `path`, which must have one format; `only`: look for this one.

    Raises ConfigurationError where there is no path, no run or more than one format, and BadSource like the readers.
    """
    if not path.exists():
        raise ConfigurationError(f"there is no {path}")
    asked = {name: reader for name, reader in readers().items() if only in (None, name)}
    found = {name: runs for name, reader in asked.items() if (runs := list(reader.runs_in(path)))}
    if len(found) > 1:
        several = " and ".join(f"{asked[name].WHAT} ({len(runs)} runs)" for name, runs in found.items())
        raise ConfigurationError(f"{path} holds {several}: choose one with --format {'|'.join(found)}")
    if not found:
        what = ", ".join(reader.WHAT for reader in asked.values())
        raise BadSource(f"{path} holds no run that can be read: looked for {what}")
    return next(iter(found.values()))
