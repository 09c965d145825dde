"""Positions at which a reader of a source goes on: each line of the spool holds that of its row.

The row and its position are one line, so no crash parts them: what the spool has is what was read. The file `position`
beside the spools repeats the newest one, for the day when delivered steps are trimmed away, and says what is
followed, and which of its names has which metric.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lossguard.spool.folders import open_private
from lossguard.spool.history import read_spools
from lossguard.spool.spool_reader import files_in, read_file

POSITION_FILE = "position"


@dataclass(frozen=True, slots=True)
class Recorded:
    """The newest row that was recorded from a source."""

    step: int
    metrics: Mapping[str, Any]
    """Under the names of the run, as the spool has them; empty where it is known from the file `position`."""
    position: Any


def newest(directory: Path) -> Recorded | None:
    """The newest row of a source in the spools of a run; None if there is none."""
    for path in reversed(files_in(directory, ".spool", ".spool.gz", ".control")):
        with read_file(path) as reader:
            for record in reader.newest_first():
                if "position" in record:
                    return Recorded(record["step"], record["metrics"], record["position"])
    file = saved(directory)
    return None if file is None else Recorded(file.step, {}, file.position)


@dataclass(frozen=True, slots=True)
class Saved:
    """The file `position`."""

    step: int
    position: Any
    names: Mapping[str, str]
    """Metric -> the name in the source that has it: it keeps it."""
    format: str
    place: str
    """The file or folder that is followed."""


def save(directory: Path, saved: Saved) -> None:
    """Write the file. A full disk is no matter: the spools have what counts most."""
    path = directory / POSITION_FILE
    partial = path.with_suffix(".partial")
    with suppress(OSError):
        with open(partial, "w", opener=open_private) as file:
            json.dump(asdict(saved), file)
        os.replace(partial, path)


def saved(directory: Path) -> Saved | None:
    """The file; None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError):
        return Saved(**json.loads((directory / POSITION_FILE).read_bytes()))
    return None


def is_finished(directory: Path) -> bool:
    """Return True if the last line of the newest spool says that the run is over, or was trimmed away for that."""
    paths = files_in(directory, ".spool", ".spool.gz", ".control")
    if not paths or paths[-1].suffix == ".control":
        return bool(paths)
    with read_file(paths[-1]) as reader:
        return "finish" in next(reader.newest_first(), {})


def live_rows(directory: Path) -> list[tuple[int, dict[str, Any]]]:
    """(step, metrics) of the rows on the live line, in the order of their steps: those that a rewind left are gone."""
    rows: list[tuple[int, dict[str, Any]]] = []
    for _, record in read_spools(directory):
        if "segment" in record and record["fork_step"] is not None:
            while rows and rows[-1][0] >= record["fork_step"]:
                rows.pop()
        elif "metrics" in record:
            rows.append((record["step"], record["metrics"]))
    return rows
