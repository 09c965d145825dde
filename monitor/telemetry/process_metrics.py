"""Prometheus metrics of this collector process. Those of runs are in `monitor.telemetry.run_metrics`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.ingestion.reports import ReportResult

BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms, in seconds."""
OUTCOMES = ("stored", "refused", "busy", "failed")
"""Outcomes of a report: 2xx, 4xx, 429 (it is sent again later), 5xx or no response at all."""


class ProcessMetrics:
    """Counts of this process since its start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reports = Counter("lossguard_reports", "Reports by outcome", ["outcome"], registry=registry)
        self.report_seconds = Histogram(
            "lossguard_report_seconds",
            "Time from a report's first byte to its response",
            buckets=BUCKETS,
            registry=registry,
        )
        self.steps = Counter("lossguard_steps", "Steps stored", registry=registry)
        self.duplicates = Counter("lossguard_duplicate_steps", "Steps that were stored already", registry=registry)
        self.requests = Gauge(
            "lossguard_requests_in_progress", "Requests being served, or waiting to be", registry=registry
        )
        self.transaction_seconds = Histogram(
            "lossguard_database_transaction_seconds",
            "Time of a writing transaction, including its wait for the lock and its commit",
            buckets=BUCKETS,
            registry=registry,
        )
        self.leader = Gauge(
            "lossguard_leader", "Whether this collector is the one that looks for stalled runs", registry=registry
        )
        ProcessCollector(registry=registry)
        self._outcomes = {outcome: self.reports.labels(outcome) for outcome in OUTCOMES}

    def count_report(self, result: ReportResult) -> None:
        """Count its steps."""
        self.steps.inc(result.num_accepted)
        if result.num_duplicates:
            self.duplicates.inc(result.num_duplicates)

    def count_response(self, status: int, seconds: float) -> None:
        """Count a report that was answered with this HTTP status after so many seconds."""
        self.report_seconds.observe(seconds)
        self._outcomes[outcome(status)].inc()

    @contextmanager
    def time_transaction(self) -> Iterator[None]:
        """Times the block, also one that raises."""
        with self.transaction_seconds.time():
            yield


class RequestMetrics:
    """ASGI middleware: counts the requests in progress, and measures how long each report takes and how it ends."""

    def __init__(self, app: ASGIApp, metrics: ProcessMetrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, self._clock()

        async def send_and_keep_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._metrics.requests.track_inprogress():
                await self._app(scope, receive, send_and_keep_status)
        finally:
            if scope["method"] == "POST" and scope["path"].endswith("/reports"):
                self._metrics.count_response(status, self._clock() - start)


def outcome(status: int) -> str:
    """The outcome of a report by the HTTP status of its response."""
    if status == 429:
        return "busy"
    return "stored" if status < 400 else "refused" if status < 500 else "failed"
