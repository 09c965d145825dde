"""How a run is registered: as its spool says, or if that line is damaged, as another spool or its folder says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lossguard.spooling.lines import is_deliverable
from lossguard.spooling.spool import spools_in
from lossguard.spooling.spool_reader import SpoolReader


def registration_of(reader: SpoolReader) -> tuple[dict[str, Any], bool]:
    """(the registration of a spool's run, whether the spool itself begins with it)."""
    for own in _registrations(reader, end=1):
        return own, True
    folder = reader.path.parent
    for path in [reader.path, *spools_in(folder)]:
        with SpoolReader(path) as other:
            for registration in _registrations(other):
                return registration, False
    return _from_folder(folder, started_at=reader.path.stat().st_mtime), False


def _registrations(reader: SpoolReader, end: int | None = None) -> Iterator[dict[str, Any]]:
    return (record["run"] for _, record in reader.records("run", end=end) if is_deliverable(record))


def _from_folder(folder: Path, *, started_at: float) -> dict[str, Any]:
    """The least that a collector needs; the names of the folders are those of the project and of the run."""
    return {
        "id": folder.name,
        "project": unquote(folder.parent.name),
        "name": folder.name,
        "config": {},
        "capabilities": [],
        "started_at": started_at,
    }
