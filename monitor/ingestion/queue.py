"""Groups waiting reports: one transaction and one commit to the disk for all of them.

While one group is being stored in a thread, the next one gathers: a single report does not wait, and a hundred
trainers share the cost of a commit. Nothing is answered before the commit. A report that cannot be stored does not harm
the others: the group is rolled back, and its reports are stored one by one.
"""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import sqlalchemy as sa
from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session

from db.store.engine import writing
from lossguard.spool.writer import Writer
from monitor.ingestion.reports import ReportResult
from monitor.ingestion.waiting_reports import PendingReport, Reported, WaitingReports

TakeReport = Callable[[Session, str, Reported, int | None, Writer | None], ReportResult]
LockRuns = Callable[[Session, Sequence[str]], None]
Timer = Callable[[], AbstractContextManager[None]]


class ReportQueue:
    """Lives in the event loop's thread, so that it needs no lock.

    `take` stores one report in a session. `lock` receives the runs of a group of several reports before the first of
    them is taken. `timer` is entered around every transaction.
    """

    def __init__(self, engine: sa.Engine, take: TakeReport, lock: LockRuns, *, timer: Timer = nullcontext) -> None:
        self._engine, self._take, self._lock, self._timer = engine, take, lock, timer
        self._waiting = WaitingReports()
        self._storing: asyncio.Task[None] | None = None

    async def store(
        self,
        run_id: str,
        report: Reported,
        *,
        undelivered_bytes: int | None = None,
        writer: Writer | None = None,
    ) -> ReportResult:
        """Store the report: the result, once it is committed. Raises what prevented it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(PendingReport(run_id, report, undelivered_bytes, writer, future))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        try:
            result: ReportResult = await future
            return result
        finally:
            del future  # with the traceback of its exception it is a cycle, which would keep the report in memory

    async def _store_all(self) -> None:
        own_thread = CapacityLimiter(1)  # not one of those that all requests share: they may all wait for a run
        try:
            while group := self._waiting.next_group():
                results = await to_thread.run_sync(partial(self._store_group, group), limiter=own_thread)
                for pending, result in zip(group, results, strict=True):
                    if pending.result.done():  # the client has gone away
                        continue
                    if isinstance(result, Exception):
                        traceback.clear_frames(result.__traceback__)  # they hold the report, in a cycle as well
                        pending.result.set_exception(result)
                    else:
                        pending.result.set_result(result)
        finally:
            self._storing = None

    def _store_group(self, group: Sequence[PendingReport]) -> list[ReportResult | Exception]:
        try:
            with self._timer(), writing(self._engine) as session:
                if len(group) > 1:
                    self._lock(session, [pending.run_id for pending in group])
                return [self._take(session, one.run_id, one.report, one.undelivered_bytes, one.writer) for one in group]
        except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # the database is unavailable for all of them
            return [error] * len(group)
        except Exception as error:
            if len(group) == 1:
                return [error]
        return [result for one in group for result in self._store_group([one])]  # not in the context of this error
