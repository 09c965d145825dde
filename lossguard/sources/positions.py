"""Positions at which a reader of a source goes on: each line of the spool holds that of its row.

The row and its position are one line, so no crash parts them: what the spool has is what was read. The file `position`
beside the spools repeats the newest one, for the day when delivered steps are trimmed away, and says what is
followed, and which of its names has which metric.
"""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lossguard.spool.archive import files_in
from lossguard.spool.folders import open_private
from lossguard.spool.history import read_spools
from lossguard.spool.lines import DamagedLine, Record, from_line
from lossguard.spool.spool_reader import WINDOW, SpoolReader

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
        for record in _newest_first(path):
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
    return bool(paths) and (paths[-1].suffix == ".control" or "finish" in next(_newest_first(paths[-1]), {}))


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


def _newest_first(path: Path) -> Iterator[Record]:
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            yield from _decoded(reversed(file.readlines()))
        return
    with SpoolReader(path) as reader:
        end = reader.size()
        while end > 0:
            begin = max(0, end - WINDOW)
            lines = [(offset, line) for offset, line in reader.lines(begin, end - begin) if offset < end]
            if begin > 0:
                lines = lines[1:]  # it begins in the middle of a line
            yield from _decoded(line for _, line in reversed(lines))
            end = lines[0][0] if lines and lines[0][0] < end else begin


def _decoded(lines: Iterator[bytes]) -> Iterator[Record]:
    for line in lines:
        with suppress(DamagedLine):
            yield from_line(line)
