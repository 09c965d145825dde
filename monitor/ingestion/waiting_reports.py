"""Reports that wait to be stored, and who is next: every run in turn, so that one with many of them delays no other.

A group takes one report of each run, the run that gave one longest ago first, then a second one, and so on. A run gives
no more than its share to a group while others wait. The reports of a run keep their order.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

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
"""What a request reports: by the SDK, or by an MLflow client."""


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
        """Whether the run has given all that it may while others wait."""
        reports, steps = self._num_reports[run_id], self._num_steps[run_id]
        return reports >= RUN_SHARE * MAX_GROUP_REPORTS or steps >= RUN_SHARE * MAX_GROUP_STEPS
