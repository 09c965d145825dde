"""Groups waiting reports: one transaction and one commit to the disk for all of them.

While one group is being stored in a thread, the next one gathers: a single report does not wait, and a hundred
trainers share the cost of a commit. Nothing is answered before the commit. A report that cannot be stored does not harm
the others: the group is rolled back, and its reports are stored one by one.

Every run has its turn: a group takes one report of each run, the run that gave one longest ago first, then a second
one, and so on. A run gives no more than its share to a group while others wait. Its reports keep their order.
"""

import asyncio
import traceback
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session

from db.store.engine import writing
from lossguard.spool.writer import Writer
from monitor.ingestion.reports import ReportResult
from monitor.ingestion.run_updates import RunUpdate
from monitor.schemas import ReportIn

MAX_GROUP_REPORTS, MAX_GROUP_STEPS = 256, 10_000
"""A group stays small, because its runs are locked until it is stored."""
RUN_SHARE = 1 / 8
"""The part of a group after which a run gives no more to it while others wait."""
USUAL_METRICS = 8
"""A step with more of them counts as several."""

Reported = ReportIn | RunUpdate
"""The content of a request, from the SDK or from an MLflow client."""


@dataclass(frozen=True, slots=True)
class PendingReport:
    """A report that waits to be stored."""

    run_id: str
    report: Reported
    undelivered_bytes: int | None
    """Size of the trainer's spool behind this report, if the trainer sent it."""
    writer: Writer | None
    """The process that sent it, if it says so."""
    result: asyncio.Future[ReportResult]

    @property
    def num_steps(self) -> int:
        """Steps with the usual number of metrics that take as long to store."""
        metrics = 0 if isinstance(self.report, RunUpdate) else len(self.report.metrics)
        return self.report.num_steps * max(1, -(-metrics // USUAL_METRICS))


class WaitingReports:
    """Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self) -> None:
        self._by_run: OrderedDict[str, deque[PendingReport]] = OrderedDict()  # the run whose turn it is comes first

    def add(self, pending: PendingReport) -> None:
        self._by_run.setdefault(pending.run_id, deque()).append(pending)

    def next_group(self) -> list[PendingReport]:
        """Take out the reports that are stored next, in the order of their runs; none: nothing waits."""
        group, is_alone = _Group(), len(self._by_run) == 1
        set_aside: OrderedDict[str, deque[PendingReport]] = OrderedDict()
        while self._by_run and not group.is_full:
            run_id, reports = self._by_run.popitem(last=False)
            if not is_alone and group.has_share_of(run_id):
                set_aside[run_id] = reports
                continue
            group.add(reports.popleft())
            if reports:
                self._by_run[run_id] = reports
        self._by_run |= set_aside
        # Every collector locks runs in the same order, so that two of them cannot deadlock.
        return sorted(group.reports, key=lambda pending: pending.run_id)


class _Group:
    """Reports that are stored together, and how many of them are of which run."""

    def __init__(self) -> None:
        self.reports: list[PendingReport] = []
        self._num_reports: Counter[str] = Counter()
        self._num_steps: Counter[str] = Counter()

    def add(self, pending: PendingReport) -> None:
        self.reports.append(pending)
        self._num_reports[pending.run_id] += 1
        self._num_steps[pending.run_id] += pending.num_steps

    @property
    def is_full(self) -> bool:
        return len(self.reports) >= MAX_GROUP_REPORTS or self._num_steps.total() >= MAX_GROUP_STEPS

    def has_share_of(self, run_id: str) -> bool:
        """True if the run has given all that it may while others wait."""
        reports, steps = self._num_reports[run_id], self._num_steps[run_id]
        return reports >= RUN_SHARE * MAX_GROUP_REPORTS or steps >= RUN_SHARE * MAX_GROUP_STEPS


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
