"""Work of the leader that may take long: each has a thread of its own, so that the lease is renewed meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from db import commands, run_states
from db.archive import inventory
from db.steps import backlog
from db.steps.archived.reading import UnreadableArchive
from db.steps.backlog import PackCandidate
from db.steps.codec import DamagedBlock
from db.store.engine import reading, writing
from db.store.leader import Lease

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
STOP_SECONDS = 10.0
"""Maximum wait for work that goes on when the collector stops: a place of archived files may not answer."""
MayGoOn = Callable[[], bool]
"""False once the work has to end at its next opportunity: the lease is lost, or the collector stops."""


class Background:
    """Calls `work` in a thread, at most once every `every_seconds`, and never twice at a time.

    Work that fails is logged, and begun again when it is next due.
    """

    def __init__(
        self, name: str, work: Callable[[Lease, MayGoOn], object], *, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._name, self._work, self._every_seconds = name, work, every_seconds
        self._due = 0.0  # by the monotonic clock
        self._thread: threading.Thread | None = None

    def start_if_due(self, lease: Lease, may_go_on: MayGoOn) -> None:
        """Begin, unless it is too early or the last time goes on."""
        is_working = self._thread is not None and self._thread.is_alive()
        if not is_working and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_seconds
            name = f"lossguard-{self._name}"
            self._thread = threading.Thread(target=self._run, args=(lease, may_go_on), name=name, daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Wait for the end of the work that goes on, for STOP_SECONDS at most."""
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self, lease: Lease, may_go_on: MayGoOn) -> None:
        try:
            self._work(lease, may_go_on)
        except sa.exc.SQLAlchemyError as error:  # the database is away
            log.debug("%s ended: %s", self._name, type(error).__name__)
        except Exception:
            log.exception("%s failed; it is tried again in %.0f s", self._name, self._every_seconds)


class FileRemoval:
    """Removes the files of archived steps whose run was deleted; what a place refuses stays listed in the store."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last_problem: str | None = None

    def remove(self, _lease: Lease, may_go_on: MayGoOn) -> None:
        """Remove what can be removed now. A problem is logged when it is not that of the time before."""
        removed = inventory.remove_left_over(self._engine, may_go_on=may_go_on)
        if removed.num_files:
            log.info("removed %d files of archived steps that nothing needs", removed.num_files)
        problem = next(iter(removed.problems), None)
        if problem is not None and problem != self._last_problem:
            log.warning("%d files of archived steps of deleted runs wait to be removed: %s", removed.num_left, problem)
        self._last_problem = problem


RUNS_AT_ONCE = 500
"""Runs that one look looks at: a look costs the same however many runs the store has."""
PACKED_AT_ONCE = 20
"""Runs that are packed after one look."""
PAUSE_SECONDS = 0.1
"""Between two of them, in which reports have their turn."""


class LastRows:
    """Packs the last steps of runs that were killed, and of ended ones with many segments: nothing else would.

    It looks at all runs in turn, some at a time. Each run is packed in a transaction of its own, which locks it as
    ingestion does: a run that reports again meanwhile is left alone, and one that comes back later goes on as ever.
    """

    def __init__(self, engine: sa.Engine, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._engine, self._pause_seconds = engine, pause_seconds
        self._after = 0
        """Key of the run that was looked at last."""
        self._failed: set[str] = set()
        """Ids of runs that could not be packed, which the log has said."""

    def pack(self, lease: Lease, may_go_on: MayGoOn) -> None:
        """Look at the next runs, and pack the first of them that wait."""
        before = run_states.stopped_before(lease.now, since=lease.since)
        with reading(self._engine) as session:
            looked = backlog.look(session, after=self._after, limit=RUNS_AT_ONCE, stopped_before=before)
        packed = [run for run in looked if run.is_waiting][:PACKED_AT_ONCE]
        for run in packed:
            if not may_go_on():
                return
            self._after = run.pk  # if the database refuses this one, the others have their turn
            self._pack_run(run.id, before)
            time.sleep(self._pause_seconds)
        self._after = next_start(looked, packed)

    def _pack_run(self, run_id: str, before: float) -> None:
        try:
            with writing(self._engine) as session:
                run = commands.lock_run(session, run_id=run_id)
                if run is None or not run_states.has_stopped(run, before):
                    return
                num_steps = backlog.pack_last_rows(session, run=run)
        except (DamagedBlock, UnreadableArchive) as error:
            if run_id not in self._failed:
                log.warning("the last steps of run %s stay rows: %s", run_id, error)
            self._failed.add(run_id)
            return
        log.info("packed the last %d steps of run %s, which no longer reports", num_steps, run_id)


def next_start(looked: Sequence[PackCandidate], packed: Sequence[PackCandidate]) -> int:
    """The key after which the next look begins: 0 once all runs were looked at."""
    if len(packed) == PACKED_AT_ONCE:
        return packed[-1].pk
    return looked[-1].pk if len(looked) == RUNS_AT_ONCE else 0
