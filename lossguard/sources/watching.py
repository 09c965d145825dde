"""Follows a source while it grows, into a run that the sender delivers. It may end and begin again at any time.

It holds the lock of the run's folder, so that two do not record one run. The spool says where it goes on.
"""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lossguard.run.settings import Mode, Settings
from lossguard.run.start import folder_of, record, storable_config
from lossguard.sources import formats, positions
from lossguard.sources.columns import Columns
from lossguard.sources.files.line_format import name_of
from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.names import NameMap
from lossguard.sources.positions import Saved
from lossguard.sources.recorder import RunRecorder
from lossguard.sources.source_run import BadSource, parsing, run_id_of
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import is_delivered
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import RunState

POLL_SECONDS = 0.2
"""Pause between two looks at the source."""
OTHERS_SECONDS = 30.0
"""Without a row, between two looks for other runs at the path."""
SEARCH_SECONDS = 1.0
"""Pause between two searches for a source that is not there yet."""
FINISH_SECONDS = 10.0
"""To deliver what is left; the rest stays in the spool."""
LOCK_WAIT = 2.0
"""Seconds to wait for another process that records the run."""


Found = tuple[str, Path]
"""The format of a source, and its file or folder."""


class Follower(Protocol):
    """Reads a source that grows."""

    @property
    def facts(self) -> SourceFacts: ...

    def poll(self, *, final: bool = False) -> Iterator[PlacedRow]: ...

    def close(self) -> None: ...


@dataclass(kw_only=True, slots=True)
class WatchedSource:
    """One source, to be followed by `run`."""

    path: Path
    settings: Settings
    names: NameMap
    say: Callable[[str], None]
    """For people: what is found, and what is amiss."""
    format: str | None = None
    layout: "formats.Layout" = field(default_factory=Columns)
    project: str
    name: str | None = None
    run_id: str | None = None
    once: bool = False
    """Read what is there, and end."""
    until_idle: float | None = None
    """Seconds without a new row after which it ends."""
    stopping: bool = False
    """Set from elsewhere: end, and leave the run as interrupted. No Event: a signal handler that sets the one for which
    the loop is about to wait waits for its lock for ever."""
    num_rows: int = 0
    """Rows that were recorded."""
    is_delivered: bool = True
    """True if all are written, and the collector has them, unless nothing was to be delivered."""
    _log_once: LogOnce = field(default_factory=LogOnce)
    _others: list[Path] = field(default_factory=list)

    def on_signal(self, _number: int, _frame: object) -> None:
        """End, and leave the run as interrupted."""
        self.stopping = True

    def run(self) -> None:
        """Follow the source to its end. Raises ConfigurationError and BadSource, in one sentence each."""
        run_id = self.run_id or run_id_of(name_of(self.path), f"{socket.gethostname()}:{self.path.resolve()}")
        saved = positions.saved(folder_of(self.settings.directory, self.project, run_id))
        found = self._find(saved)
        if found is None:
            return
        format, place = found
        run = record(self._registration(run_id, place), replace(self.settings, run_id=run_id))
        directory = run.directory
        assert directory is not None
        state = RunState.INTERRUPTED
        try:
            self.names.go_on_with({} if saved is None else saved.names)
            newest = positions.newest(directory)
            joiner = Joiner(self.names, newest, lambda: dict(positions.live_rows(directory)), place)
            with parsing(place):
                follower = formats.follow(format, place, joiner, self.layout)
                facts = follower.facts
            self.say(f"{place} ({format}) is recorded as run {run_id} of project {self.project}")
            recorder = RunRecorder(run, self.names, facts, say=self.say)
            try:
                if self._follow(follower, recorder, directory, found):
                    if not self.num_rows and saved is None:
                        raise BadSource(f"{place} has no row with a step and a number")
                    state = RunState.FINISHED
                    recorder.flush()
            finally:
                follower.close()
                recorder.say_preview()
        finally:
            run.finish(state, timeout=FINISH_SECONDS)
            is_online = self.settings.mode is Mode.ONLINE
            self.is_delivered = run.is_written and (not is_online or all(map(is_delivered, spools_in(directory))))

    def _registration(self, run_id: str, place: Path) -> dict[str, Any]:
        name = self.name or (place.resolve().name if place.is_dir() else name_of(place))
        return {
            "id": run_id,
            "project": self.project,
            "name": name[:256],
            "config": storable_config({"watched": str(place)}),
            "host": socket.gethostname(),
            "capabilities": [],  # it takes no orders: there are incidents and alerts alone
            "started_at": time.time(),
        }

    def _find(self, saved: Saved | None) -> Found | None:
        """(format, place) of the one source at or below the path: the one that was followed before, if it is still
        there. None if it is stopped before there is one."""
        if saved is not None and self.format in (None, saved.format) and Path(saved.place).exists():
            return saved.format, Path(saved.place)
        is_waiting = False
        idle_until = None if self.until_idle is None else time.monotonic() + self.until_idle
        while True:
            found = formats.places_in(self.path, self.format, self.layout)
            if len(found) > 1:
                raise ConfigurationError(_choice(self.path, found))
            if found:
                return found[0]
            if self.once or (idle_until is not None and time.monotonic() >= idle_until):
                raise BadSource(formats.nothing_found(self.path, formats.WATCHED, self.format, self.layout))
            if not is_waiting:
                self.say(f"{self.path} holds no run yet; waiting for it")
                is_waiting = True
            time.sleep(SEARCH_SECONDS)
            if self.stopping:
                return None

    def _follow(self, follower: Follower, recorder: RunRecorder, directory: Path, found: Found) -> bool:
        """Until it is over; returns whether the source has ended, as far as anybody can know."""
        format, place = found
        newest_at, look_at = time.monotonic(), OTHERS_SECONDS
        while True:
            is_last = self.once or (self.until_idle is not None and time.monotonic() - newest_at >= self.until_idle)
            if (newest := self._record(follower, recorder, final=is_last)) is not None:
                saved = Saved(newest.row.step, newest.position, dict(self.names.chosen), format, str(place))
                positions.save(directory, saved)
                newest_at, look_at = time.monotonic(), OTHERS_SECONDS
                is_last = self.once
            if is_last:
                return True
            if time.monotonic() - newest_at >= look_at:
                self._look_for_others(format, place)
                look_at += OTHERS_SECONDS
            time.sleep(POLL_SECONDS)
            if self.stopping:
                return False

    def _look_for_others(self, format: str, place: Path) -> None:
        """Hugging Face Trainer begins another folder when it resumes a run: say so, or it would look watched."""
        others = [each for _, each in formats.places_in(self.path, format, self.layout) if each != place]
        if others and others != self._others:
            self._others = others
            self.say(f"{self.path} holds {others[-1]} too, which is not followed: watch it with a --run-id of its own")

    def _record(self, follower: Follower, recorder: RunRecorder, *, final: bool) -> PlacedRow | None:
        """Record what is new; return the last row of it."""
        placed = None
        try:
            with parsing(self.path):
                for placed in follower.poll(final=final):
                    recorder.write_row(placed.row, placed.position)
                    self.num_rows += 1
            self._log_once.reset("unreadable")
        except OSError as problem:
            self._log_once.warn_once("unreadable", f"{self.path} cannot be read ({problem.strerror}); trying again")
        return placed


def _choice(path: Path, found: list[tuple[str, Path]]) -> str:
    kinds = sorted({name for name, _ in found})
    if len(kinds) > 1:
        return f"{path} holds {' and '.join(kinds)}: choose one with --format {'|'.join(kinds)}"
    places = ", ".join(str(place) for _, place in found[:5])
    return f"{path} holds {len(found)} runs: name one of them ({places}{', ..' if len(found) > 5 else ''})"
