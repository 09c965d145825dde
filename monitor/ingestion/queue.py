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
from monitor.ingestion.lease import Claim
from monitor.ingestion.reports import ReportResult, take_report
from monitor.ingestion.run_cache import RunCache
from monitor.ingestion.run_updates import RunLimits, RunUpdate, take_update
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
    run_id: str
    report: Reported
    undelivered_bytes: int | None
    """Size of the trainer's spool behind this report, if the trainer sent it."""
    writer: Writer | None
    """The process that sent it, if it says so."""
    result: asyncio.Future[ReportResult]

    @property
    def is_reported(self) -> bool:
        """True if a trainer sent it; otherwise the collector completes the open rows of the run."""
        return not isinstance(self.report, RunUpdate) or self.report.is_reported

    @property
    def num_steps(self) -> int:
        """Steps with the usual number of metrics that take as long to store."""
        if isinstance(self.report, RunUpdate):
            return len(self.report.metrics)
        return len(self.report.steps) * max(1, -(-len(self.report.metrics) // USUAL_METRICS))


class WaitingReports:
    """Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self) -> None:
        self._by_run: OrderedDict[str, deque[PendingReport]] = OrderedDict()  # the run whose turn it is comes first

    def add(self, pending: PendingReport) -> None:
        self._by_run.setdefault(pending.run_id, deque()).append(pending)

    def next_group(self) -> list[PendingReport]:
        """Take out the reports that are stored next, in the order of their runs; none: nothing waits."""
        group: list[PendingReport] = []
        num_reports, num_steps = Counter[str](), Counter[str]()
        is_alone = len(self._by_run) == 1
        set_aside: OrderedDict[str, deque[PendingReport]] = OrderedDict()
        while self._by_run and len(group) < MAX_GROUP_REPORTS and num_steps.total() < MAX_GROUP_STEPS:
            run_id, reports = self._by_run.popitem(last=False)
            share = max(num_reports[run_id] / MAX_GROUP_REPORTS, num_steps[run_id] / MAX_GROUP_STEPS)
            if share >= RUN_SHARE and not is_alone:
                set_aside[run_id] = reports
                continue
            group.append(reports.popleft())
            num_reports[run_id] += 1
            num_steps[run_id] += group[-1].num_steps
            if reports:
                self._by_run[run_id] = reports
        self._by_run |= set_aside
        # Every collector locks runs in the same order, so that two of them cannot deadlock.
        return sorted(group, key=lambda pending: pending.run_id)


class Intake:
    """Takes reports into the runs of a store."""

    def __init__(self, clock: Callable[[], float], limits: RunLimits, *, lease_seconds: float) -> None:
        """`clock` returns unix seconds. `lease_seconds`: duration of the lease of a run."""
        self._clock, self._limits, self._lease_seconds = clock, limits, lease_seconds
        self.cache = RunCache()

    def lock(self, session: Session, group: Sequence[PendingReport]) -> None:
        """Lock the runs of several reports, before the first of them is taken."""
        has_reported: dict[str, bool] = {}
        for pending in group:
            has_reported[pending.run_id] = pending.is_reported or has_reported.get(pending.run_id, False)
        self.cache.lock_ahead(session, has_reported, self._clock())

    def take(self, session: Session, pending: PendingReport) -> ReportResult:
        """Store one report, and act on it."""
        run_id, report, cache, limits = pending.run_id, pending.report, self.cache, self._limits
        claim = Claim(writer=pending.writer, now=self._clock(), seconds=self._lease_seconds)
        if isinstance(report, RunUpdate):
            return take_update(session, run_id, report, claim=claim, cache=cache, limits=limits)
        return take_report(
            session,
            report,
            lambda: cache.lock(session, run_id, claim.now, attach=False),
            claim=claim,
            max_metrics=limits.max_metrics,
            undelivered_bytes=pending.undelivered_bytes,
        )


class ReportQueue:
    """Lives in the event loop's thread, so that it needs no lock. `timer` is entered around every transaction."""

    def __init__(
        self, engine: sa.Engine, intake: Intake, *, timer: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._engine, self.intake, self._timer = engine, intake, timer
        self._waiting = WaitingReports()
        self._storing: asyncio.Task[None] | None = None

    async def store(
        self, run_id: str, report: Reported, *, undelivered_bytes: int | None = None, writer: Writer | None = None
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
                    self.intake.lock(session, group)
                return [self.intake.take(session, pending) for pending in group]
        except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # the database is unavailable for all of them
            return [error] * len(group)
        except Exception as error:
            if len(group) == 1:
                return [error]
        return [result for one in group for result in self._store_group([one])]  # not in the context of this error
