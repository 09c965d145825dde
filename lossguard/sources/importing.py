"""A stored run into spools, which deliver it like any other run. Importing again adds only what has come since."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lossguard.run.settings import Settings
from lossguard.run.start import folder_of, locked, record, storable_config
from lossguard.sources import positions
from lossguard.sources.names import NameMap
from lossguard.sources.positions import Recorded, Saved
from lossguard.sources.recorder import RunRecorder, recognised
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import IMPORTED, encode_number

LOOK_AHEAD = 2048
"""Rows by which it is recognised how all of them were made."""
PROGRESS_ROWS = 1000
"""Rows between two calls of the progress."""
MAX_NAMES = 20
"""Names of a source in a message."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of importing a stored run."""

    run_id: str
    folder: Path
    num_rows: int
    """Rows that were recorded now."""
    num_known: int
    """Rows that were recorded before."""
    preview: str = ""
    """The mapping of the first rows that were recorded now; empty where there are none."""
    problem: str = ""
    """Reason why not all rows could be read, in one sentence."""


def import_run(
    stored: SourceRun,
    *,
    project: str,
    settings: Settings,
    names: NameMap,
    run_id: str | None = None,
    progress: Callable[[int], None] = lambda num_rows: None,
) -> Imported:
    """Record the rows of `stored` that its spools do not have yet; `progress` gets the number of rows read.

    `settings` are offline: whoever calls delivers. Raises BadSource where there are no rows, ConfigurationError where
    the folder cannot be written, as on a full disk, or another process writes it.
    """
    run_id = run_id or stored.run_id
    folder = folder_of(settings.directory, project, run_id)
    if next(iter(stored.rows()), None) is None:
        raise BadSource(f"{stored.place} has no row with a step and a number")
    if positions.newest(folder) is None:
        _check_overrides(stored, names)
    with locked(folder, settings):  # before the look at what is recorded: another import may add to it
        known = positions.newest(folder)
        if (saved := positions.saved(folder)) is not None:
            names.go_on_with(saved.names)
        num_known = 0 if known is None else int(known.position)
        problems: list[str] = []
        rows = _until_damage(_new_rows(stored, known, folder, names), problems)
        first = next(rows, None)
        if first is None and positions.is_finished(folder):
            return Imported(folder.name, folder, 0, num_known, problem="".join(problems))
        began = stored.started_at or (None if first is None else first.time) or stored.ended_at or time.time()
        registration = _registration(stored, folder.name, project, began)
        run = record(registration, settings, session=_session(folder, folder.name))
        head = list(chain([] if first is None else [first], islice(rows, LOOK_AHEAD)))
        recorder = RunRecorder(run, names, recognised(head, names, stored.facts))
        num_new, last = 0, None
        for row in chain(head, rows):
            last = row if row.time is not None else Row(row.step, stored.ended_at or began, row.values)
            num_new += 1
            recorder.write_row(last, num_known + num_new)
            if num_new % PROGRESS_ROWS == 0:
                progress(num_known + num_new)
        recorder.flush(num_known + num_new)
        progress(num_known + num_new)
        run.finish(stored.state, at=stored.ended_at or (None if last is None else last.time) or began)
        if not run.is_written:
            raise ConfigurationError(f"{stored.place}: not all rows could be written to {folder}; import it again")
        if last is not None:
            place = Saved(last.step, num_known + num_new, dict(names.chosen), stored.format, stored.place)
            positions.save(folder, place)
        preview = recorder.preview.text() if num_new else ""
        return Imported(folder.name, folder, num_new, num_known, preview, "".join(problems))


def _check_overrides(stored: SourceRun, names: NameMap) -> None:
    """Raise BadSource if no row has a name that --map gives: rows that are recorded keep the names they got then."""
    missing = {name: metric for metric, name in names.overrides.items()}
    seen: dict[str, None] = {}
    rows = _until_damage(iter(stored.rows()), [])
    while missing and (row := next(rows, None)) is not None:
        seen.update(dict.fromkeys(row.values))
        missing = {name: metric for name, metric in missing.items() if name not in seen}
    for name, metric in missing.items():
        known = ", ".join(list(seen)[:MAX_NAMES])
        raise BadSource(f"{stored.place} has no {name!r}, which --map names for {metric}; names there: {known}")


def _until_damage(rows: Iterator[Row], problems: list[str]) -> Iterator[Row]:
    """The rows before a place that cannot be read; `problems` gets what is wrong there."""
    try:
        yield from rows
    except BadSource as problem:
        problems.append(str(problem))


def _registration(stored: SourceRun, run_id: str, project: str, began: float) -> dict[str, Any]:
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


def _new_rows(stored: SourceRun, known: Recorded | None, folder: Path, names: NameMap) -> Iterator[Row]:
    """The rows behind those that are recorded."""
    rows = iter(stored.rows())
    if known is None:
        return rows
    row = None
    for row in islice(rows, known.position):
        names.mapped(row.values)  # a name that had a metric keeps it
    if row is not None and row.step == known.step:
        return rows
    return _behind_recorded(iter(stored.rows()), folder, names)


def _behind_recorded(rows: Iterator[Row], folder: Path, names: NameMap) -> Iterator[Row]:
    """Return the rows of a source that was written anew (a resume) that differ from the recorded ones."""
    recorded = dict(positions.live_rows(folder))
    for row in rows:
        values = {name: encode_number(value) for name, value in names.mapped(row.values).items()}
        if recorded.get(row.step) != values:
            return chain([row], rows)
    return iter(())
