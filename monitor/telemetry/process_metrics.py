"""What this collector process does, for Prometheus: each worker's own; what concerns runs is in monitor.run_metrics."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.ingestion.reports import Receipt

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OUTCOMES = ("stored", "refused", "busy", "failed")
"""Of a report: 2xx, 4xx, 429 (sent again later), 5xx or no answer at all."""


class Counters:
    """What this process has done since it started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reports = Counter("lossguard_reports", "Reports by what became of them", ["outcome"], registry=registry)
        self.seconds = Histogram(
            "lossguard_report_seconds",
            "Time from a report's first byte to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.steps = Counter("lossguard_steps", "Steps stored", registry=registry)
        self.duplicates = Counter("lossguard_duplicate_steps", "Steps that were stored already", registry=registry)
        self.requests = Gauge(
            "lossguard_requests_in_progress", "Requests being served or waiting for it", registry=registry
        )
        self.database = Histogram(
            "lossguard_database_transaction_seconds",
            "Time of a transaction that writes, waiting for its turn and the commit included",
            buckets=SECONDS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        for outcome in OUTCOMES:
            self.reports.labels(outcome)

    def count_report(self, receipt: Receipt) -> None:
        self.steps.inc(receipt.accepted)
        self.duplicates.inc(receipt.duplicates)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Times the block, also one that raises."""
        with self.database.time():
            yield


class Measured:
    """ASGI middleware: how long each report takes, and what becomes of it."""

    def __init__(self, app: ASGIApp, counters: Counters, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._counters, self._clock = app, counters, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, self._clock()

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._counters.requests.track_inprogress():
                await self._app(scope, receive, seen)
        finally:
            if scope["method"] == "POST" and scope["path"].endswith("/reports"):
                self._counters.seconds.observe(self._clock() - began)
                self._counters.reports.labels(outcome(status)).inc()


def outcome(status: int) -> str:
    """The word for an HTTP status."""
    if status == 429:
        return "busy"
    return "stored" if status < 400 else "refused" if status < 500 else "failed"
