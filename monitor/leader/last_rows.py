"""What the leader does besides: pack the last steps of runs that were killed, and of ended ones with many segments.

They never report their end, so nothing else would. Each run is packed in a transaction of its own, which locks it as
ingestion does: a run that reports again meanwhile is left alone, and one that comes back later goes on as ever.
"""

import logging
import time
from collections.abc import Sequence

import sqlalchemy as sa

from db import commands, run_states
from db.steps import backlog
from db.steps.archived.reading import UnreadableArchive
from db.steps.backlog import Looked
from db.steps.block_codec import DamagedBlock
from db.store.engine import reading, writing
from db.store.leader import Lease

log = logging.getLogger(__name__)

RUNS_AT_ONCE = 500
"""Runs that one look looks at: a look costs the same however many runs the store has."""
PACKED_AT_ONCE = 20
"""Runs that are packed after one look."""
PAUSE_SECONDS = 0.1
"""Between two of them, in which reports have their turn."""


class LastRows:
    """Looks at all runs in turn, some at a time."""

    def __init__(self, engine: sa.Engine, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._engine, self._pause_seconds = engine, pause_seconds
        self._after = 0
        """Key of the run that was looked at last."""
        self._failed: set[str] = set()
        """Ids of runs that could not be packed, which the log has said."""

    def pack(self, lease: Lease) -> None:
        """Look at the next runs, and pack the first of them that wait."""
        before = run_states.stopped_before(lease.now, since=lease.since)
        try:
            with reading(self._engine) as session:
                looked = backlog.look(session, after=self._after, limit=RUNS_AT_ONCE, stopped_before=before)
            packed = [run for run in looked if run.is_waiting][:PACKED_AT_ONCE]
            for run in packed:
                self._after = run.pk  # if the database refuses this one, the others have their turn
                self._pack_run(run.id, before)
                time.sleep(self._pause_seconds)
        except sa.exc.SQLAlchemyError as error:  # the next time may do better
            log.debug("the last steps of stopped runs were not packed: %s", type(error).__name__)
            return
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


def next_start(looked: Sequence[Looked], packed: Sequence[Looked]) -> int:
    """The key after which the next look begins: 0 once all runs were looked at."""
    if len(packed) == PACKED_AT_ONCE:
        return packed[-1].pk
    return looked[-1].pk if len(looked) == RUNS_AT_ONCE else 0
