"""Completes the rows of which nothing more comes: a run that is killed sends no last word.

Every collector looks after the runs that reported to it, after its start once after all others, and every minute after
those that have not reported for a minute: the collector that they reported to may not come back.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db.runs import mlflow
from db.steps.archived.reading import UnreadableArchive
from db.steps.codec import DamagedBlock
from db.store.engine import first_line
from monitor.ingestion.queue import ReportQueue
from monitor.ingestion.run_updates import RunUpdate
from monitor.problems import Problem

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SEARCH_SECONDS = 60.0
"""Seconds between two searches for rows of other collectors, whose runs have not reported for as long."""
RETRY_SECONDS = 60.0
"""Seconds until rows that could not be stored are tried again."""


class WaitingRows:
    """Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self, engine: sa.Engine, queue: ReportQueue, clock: Callable[[], float]) -> None:
        self._engine, self._queue, self._clock = engine, queue, clock
        self._due_at: dict[str, float] = {}
        self._searched_at: float | None = None
        self._failed: set[str] = set()  # ids of runs of which the log has said that their rows cannot be completed

    @property
    def num_waiting(self) -> int:
        """Runs with open rows."""
        return len(self._due_at)

    def note(self, run_id: str, due_at: float | None) -> None:
        """The open rows of the run are due then; None: it has none."""
        if due_at is None:
            self._due_at.pop(run_id, None)
            self._failed.discard(run_id)
        else:
            self._due_at[run_id] = due_at

    async def watch(self, stopped: asyncio.Event) -> None:
        """Complete rows as they are due, until `stopped` is set: a cancelled task would leave a connection behind.

        Each caller has an event of its own, since an application may run in several event loops.
        """
        while not stopped.is_set():
            try:
                await self.complete_due()
            except sa.exc.SQLAlchemyError as error:  # the database is away: the rows wait in it
                log.debug("open rows wait: %s", type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), POLL_SECONDS)

    async def complete_due(self) -> None:
        """Complete all rows that are due by now, those that another collector left included."""
        now = self._clock()
        if self._searched_at is None or now >= self._searched_at + SEARCH_SECONDS:
            for run_id in await run_in_threadpool(self._stored, now):
                self._due_at.setdefault(run_id, 0.0)
            self._searched_at = now
        for run_id in [run_id for run_id, due_at in self._due_at.items() if due_at <= now]:
            try:
                self.note(run_id, (await self._queue.store(run_id, RunUpdate())).rows_due_at)
            except Problem as problem:  # the run was deleted
                log.warning("the open rows of run %s are left: %s", run_id, problem.detail)
                self.note(run_id, None)
            except (DamagedBlock, UnreadableArchive) as error:
                log.warning("the open rows of run %s wait: %s", run_id, first_line(error))
                self.note(run_id, now + RETRY_SECONDS)
            except (sa.exc.OperationalError, sa.exc.TimeoutError):  # the database is away for all of them
                raise
            except Exception:  # one run does not keep the rows of the others waiting
                if run_id not in self._failed:
                    log.exception("completing the open rows of run %s failed", run_id)
                self._failed.add(run_id)
                self.note(run_id, now + RETRY_SECONDS)

    def _stored(self, now: float) -> list[str]:
        """Return the runs with open rows: at the start all, later those that are silent."""
        before = None if self._searched_at is None else now - SEARCH_SECONDS
        with Session(self._engine) as session:
            return list(mlflow.runs_with_open_rows(session, reported_before=before))
