"""Middleware of all requests, whoever answers them: an id, headers, metrics, and one line of the log.

The id is the client's own X-Request-ID if it is well-formed, else a random one. It is in the response and in every line
that is logged while the request is served. Headers, bodies and query strings are never logged. No response may be
framed, sniffed, cached or named in a referrer, and every one names the version of the wire.
"""

import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.vocabulary.protocol import WIRE_HEADER, WIRE_VERSION
from monitor import problems
from monitor.ingestion.reports import ReportResult
from monitor.problems import Problem
from monitor.telemetry.logs import request_id

log = logging.getLogger("monitor.requests")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
WIRE, VERSION = WIRE_HEADER.lower().encode(), WIRE_VERSION.encode()
POLICY = b"content-security-policy"
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (WIRE, VERSION),
]
"""Headers of every response that does not set them itself."""
DOCS_POLICY = (
    b"default-src 'self'; img-src * data:; "
    b"script-src 'unsafe-inline' cdn.jsdelivr.net; style-src 'unsafe-inline' cdn.jsdelivr.net"
)
"""Policy of /docs, which loads Swagger UI from its CDN."""
DOCS_HEADERS = [*(dict(HEADERS) | {POLICY: DOCS_POLICY}).items()]
BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms, in seconds."""
OUTCOMES = ("stored", "refused", "busy", "failed")
"""Outcomes of a report: 2xx, 4xx, 429 (it is sent again later), 5xx or no response at all."""
REPORTS = ("/reports", "/log-metric", "/log-batch")
"""Ends of the paths at which steps arrive: the SDK's, and those of MLflow clients."""
OPENINGS = ("/runs", "/segments", "/lease", "/runs/create")
"""Ends of the paths that a trainer must have called before its first report."""
NOT_TAKEN = frozenset({400, 401, 403, 413, 422, 426})
"""Statuses of a request that is wrong in itself. 404 and 409 depend on the run, and a trainer may go on after them."""


class ProcessMetrics:
    """Prometheus metrics of this process since its start. Those of runs are in `monitor.telemetry.run_metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"lossguard_{name}", text, buckets=BUCKETS, registry=registry)

        text = "Reports by outcome, and refused requests that come before the first report"
        reports = Counter("lossguard_reports", text, ["outcome"], registry=registry)
        self._outcomes = {outcome: reports.labels(outcome) for outcome in OUTCOMES}
        self._report_seconds = histogram("report_seconds", "Time from a report's first byte to its response")
        self._steps = Counter("lossguard_steps", "Steps stored", registry=registry)
        self._duplicates = Counter("lossguard_duplicate_steps", "Steps that were stored already", registry=registry)
        self.requests = Gauge(
            "lossguard_requests_in_progress", "Requests being served, or waiting to be", registry=registry
        )
        self._transaction_seconds = histogram(
            "database_transaction_seconds",
            "Time of a writing transaction, including its wait for the lock and its commit",
        )
        self.leader = Gauge(
            "lossguard_leader", "Whether this collector is the one that looks for stalled runs", registry=registry
        )
        ProcessCollector(registry=registry)

    def count_report(self, result: ReportResult) -> None:
        self._steps.inc(result.num_accepted)
        if result.num_duplicates:
            self._duplicates.inc(result.num_duplicates)

    def count_response(self, path: str, status: int, seconds: float, *, is_known: bool) -> None:
        """Count a POST that was answered with this HTTP status after so many seconds.

        `is_known`: its token is valid. A client without one that is held off (429) makes the collector no busier.
        """
        if path.endswith("/reports"):
            self._report_seconds.observe(seconds)
        if path.endswith(REPORTS):
            is_busy = status == 429 and is_known
            outcome = "stored" if status < 400 else "busy" if is_busy else "refused" if status < 500 else "failed"
            self._outcomes[outcome].inc()
        elif path.endswith(OPENINGS) and (status in NOT_TAKEN or (status == 429 and not is_known)):
            self._outcomes["refused"].inc()

    @contextmanager
    def time_transaction(self) -> Iterator[None]:
        """Times the block, also one that raises."""
        with self._transaction_seconds.time():
            yield


class Requests:
    """ASGI middleware, the outermost one. Refuses another version of the wire."""

    def __init__(self, app: ASGIApp, metrics: ProcessMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        own_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        reset = request_id.set(own_id)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name.lower() for name, _ in message.setdefault("headers", [])}
                added = DOCS_HEADERS if scope["path"] == "/docs" else HEADERS
                message["headers"] += [header for header in added if header[0] not in own]
                message["headers"].append((b"x-request-id", own_id.encode()))
            await send(message)

        version = next((value for name, value in scope["headers"] if name == WIRE), VERSION)
        answer = self._app if version == VERSION else problems.response_to(Request(scope), _other_wire(version))
        try:
            with self._metrics.requests.track_inprogress():
                await answer(scope, receive, send_with_headers)
        except Exception:
            log.exception("the request caused an internal error")
            if not status:
                await problems.internal_error()(scope, receive, send_with_headers)
            raise
        finally:
            seconds = time.perf_counter() - start
            if scope["method"] == "POST":
                is_known = "principal" in scope.get("state", {})
                self._metrics.count_response(scope["path"], status or 500, seconds, is_known=is_known)
            log.info("%s", scope["method"], extra={"fields": _fields(scope, status, seconds)})
            request_id.reset(reset)


def _other_wire(version: bytes) -> Problem:
    spoken = version[:20].decode("ascii", "replace")
    detail = f"the client speaks version {spoken} of the wire, and this collector version {WIRE_VERSION}"
    return Problem(426, "another version", f"{detail}: upgrade the older one", [WIRE_HEADER])


def _fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """`status` 0: the client disconnected before the response started."""
    route, path = scope.get("route"), scope["path"]
    if route is None:
        template = path[:256]
    else:  # its own template lacks the prefix of its router
        prefix = path.split("/")[: path.count("/") - route.path_format.count("/") + 1]
        template = "/".join(prefix) + route.path_format
    run = scope.get("path_params", {}).get("run_id")
    return {"route": template, "run": run, "status": status, "ms": round(1e3 * seconds, 2)}
