"""A stored run into spools, which deliver it like any other run. Importing again adds only what has come since."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lossguard.protocol import IMPORTED, encode_number
from lossguard.settings import Settings
from lossguard.sources import positions
from lossguard.sources.names import NameMap
from lossguard.sources.positions import Recorded
from lossguard.sources.recorder import RunRecorder
from lossguard.sources.rows import Row
from lossguard.sources.stored_run import BadSource, StoredRun
from lossguard.start import folder_of, record, storable_config

PROGRESS_ROWS = 1000
"""Rows between two calls of the progress."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a stored run."""

    run_id: str
    folder: Path
    num_rows: int
    """That were recorded now."""
    num_known: int
    """That were recorded before."""


def import_run(
    stored: StoredRun,
    *,
    project: str,
    settings: Settings,
    names: NameMap,
    run_id: str | None = None,
    progress: Callable[[int], None] = lambda num_rows: None,
) -> Imported:
    """Record the rows of `stored` that its spools do not have yet; `progress` gets the number of rows read.

    `settings` are offline: whoever calls delivers. Raises BadSource where there are no rows, ConfigurationError where
    the folder cannot be written or another process writes it.
    """
    run_id = run_id or stored.run_id
    folder = folder_of(settings.directory, project, run_id)
    known = positions.newest(folder)
    num_known = 0 if known is None else int(known.position)
    rows = _new_rows(stored, known, folder, names)
    first = next(rows, None)
    if first is None:
        if known is None:
            raise BadSource(f"{stored.place} has no row with a step and a number")
        if positions.is_finished(folder):
            return Imported(run_id, folder, 0, num_known)
    num_new, last_time = 0, stored.ended_at
    began = stored.started_at or (first.time if first is not None else None) or stored.ended_at or time.time()
    run = record(_registration(stored, run_id, project, began), settings, session=_session(folder, run_id))
    recorder = RunRecorder(run, names, stored.facts)
    for row in chain([first] if first is not None else [], rows):
        if row.time is None:
            row = Row(row.step, stored.ended_at or began, row.values)
        num_new, last_time = num_new + 1, row.time
        recorder.write_row(row, num_known + num_new)
        if num_new % PROGRESS_ROWS == 0:
            progress(num_known + num_new)
    progress(num_known + num_new)
    run.finish(stored.state, at=stored.ended_at or last_time or began)
    return Imported(run_id, folder, num_new, num_known)


def _registration(stored: StoredRun, run_id: str, project: str, began: float) -> dict[str, Any]:
    return {
        "id": run_id,
        "project": project,
        "name": stored.name[:256] or run_id,
        "config": storable_config(dict(stored.config), stored.tags),
        "command": stored.command,
        "git_commit": stored.git_commit,
        "host": stored.host,
        "devices": [],
        "versions": {},
        "capabilities": [IMPORTED],
        "started_at": began,
        "total_steps": stored.total_steps,
    }


def _session(folder: Path, run_id: str) -> str | None:
    """The first session has the same name wherever the run is imported: the collector then knows its segments, and
    drops the steps that it has. The zeros sort it before every other session."""
    is_first = not any(folder.glob("*.spool*")) and not any(folder.glob("*.control"))
    return "0" * 16 + hashlib.sha256(run_id.encode()).hexdigest()[:6] if is_first else None


def _new_rows(stored: StoredRun, known: Recorded | None, folder: Path, names: NameMap) -> Iterator[Row]:
    """The rows behind those that are recorded."""
    rows = iter(stored.rows())
    if known is None:
        return rows
    skipped = list(islice(rows, known.position - 1, known.position))  # the last of them
    if skipped and skipped[0].step == known.step:
        names.mapped(skipped[0].values)
        return rows
    return _behind_recorded(iter(stored.rows()), folder, names)


def _behind_recorded(rows: Iterator[Row], folder: Path, names: NameMap) -> Iterator[Row]:
    """Of a source that was written anew, as after a resume: what differs from the rows that are recorded."""
    recorded = dict(positions.live_rows(folder))
    for row in rows:
        values = {name: encode_number(value) for name, value in names.mapped(row.values).items()}
        if recorded.get(row.step) != values:
            return chain([row], rows)
    return iter(())
