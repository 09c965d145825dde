"""The collector as an ASGI application. Importing this module creates nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db.store.engine import create_engine
from db.store.leader import Lease
from lossguard.spool.writer import Writer
from monitor import problems
from monitor.api import routes
from monitor.api.auth import Authentication, FailedAttempts
from monitor.api.plain_reports import PlainReports
from monitor.api.request_limits import RequestLimits
from monitor.api.response_headers import ResponseHeaders
from monitor.ingestion.lease import Claim
from monitor.ingestion.order_terms import OrderTerms
from monitor.ingestion.queue import ReportQueue
from monitor.ingestion.reports import ReportResult, take_report
from monitor.ingestion.run_cache import RunCache
from monitor.ingestion.run_updates import Limits, RunUpdate, take_update
from monitor.ingestion.waiting_reports import Reported
from monitor.ingestion.waiting_rows import WaitingRows
from monitor.leader.background import Background
from monitor.leader.file_removal import FileRemoval
from monitor.leader.last_rows import LastRows
from monitor.leader.leadership import Leadership
from monitor.leader.stall_check import look
from monitor.scored_runs import ScoredRuns
from monitor.settings import Settings
from monitor.store_clock import StoreClock
from monitor.telemetry.logs import RequestLog
from monitor.telemetry.process_metrics import ProcessMetrics, RequestMetrics
from monitor.telemetry.run_metrics import RunMetrics

Clock = Callable[[], float]


class CollectorApp(FastAPI):
    """Describes the shape of error responses in its OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        description = super().openapi()
        description["components"]["schemas"]["Problem"] = problems.SCHEMA
        return description


def create_app(
    settings: Settings,
    *,
    engine: sa.Engine | None = None,
    registry: CollectorRegistry | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """The application over a store whose schema is up to date; `clock` returns unix seconds, by default those of the
    database. With another clock nobody looks for stalled runs."""
    store_clock = StoreClock()
    clock = clock or store_clock
    terms = OrderTerms(
        seconds=settings.order_expires_seconds, steps=settings.order_expires_steps, key=settings.order_signing_key()
    )
    engine = terms.attached_to(engine or create_engine(settings.database_url))
    registry = registry or CollectorRegistry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # It belongs to this event loop: a test may run the application in several.
        waiting_rows = app.state.waiting_rows = WaitingRows(engine, app.state.report_queue, clock)
        watch = asyncio.create_task(waiting_rows.watch())
        leadership = app.state.leadership = lead()
        if clock is store_clock:  # stalls are judged by the clock of the database
            leadership.start()
        yield
        await run_in_threadpool(leadership.stop)
        waiting_rows.stop()
        await watch
        engine.dispose()

    def lead() -> Leadership:
        return Leadership(engine, work, observe_clock=store_clock.observe)

    file_removal = FileRemoval(engine)
    last_rows = LastRows(engine)
    in_background = (
        Background("file-removal", lambda lease: file_removal.remove()),
        Background("packing", last_rows.pack),
    )

    def work(lease: Lease) -> None:
        for each in in_background:
            each.start_if_due(lease)
        look(engine, lease)

    # The OpenAPI document is served by routes of our own, which require a token like all others.
    app = CollectorApp(title="Lossguard collector", version="1", lifespan=lifespan, openapi_url=None)
    metrics = ProcessMetrics(registry)
    app.state.settings, app.state.engine, app.state.clock = settings, engine, clock
    app.state.registry, app.state.metrics, app.state.failed_attempts = registry, metrics, FailedAttempts()
    app.state.run_metrics = RunMetrics(engine, limit=settings.max_runs_in_metrics, clock=clock)
    app.state.scored_runs = ScoredRuns()
    app.state.needs_token = settings.token is not None
    app.state.run_cache = RunCache()
    app.state.report_queue = _report_queue(settings, engine, clock, app.state.run_cache, metrics)
    app.state.waiting_rows = WaitingRows(engine, app.state.report_queue, clock)
    app.state.leadership = lead()
    metrics.leader.set_function(lambda: float(app.state.leadership.is_leader))
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(PlainReports, reports=app.state.report_queue, metrics=metrics)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(Authentication)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(RequestMetrics, metrics=metrics)
    app.add_middleware(RequestLog)
    # Not `include_router`, which would assemble them anew for every application.
    app.router.routes.extend(routes.router.routes)
    return app


def _report_queue(
    settings: Settings, engine: sa.Engine, clock: Clock, cache: RunCache, metrics: ProcessMetrics
) -> ReportQueue:
    limits = Limits(max_metrics=settings.max_metrics, max_segments=settings.max_segments)

    def take(
        session: Session, run_id: str, report: Reported, undelivered_bytes: int | None, writer: Writer | None
    ) -> ReportResult:
        claim = Claim(writer=writer, now=clock(), seconds=settings.lease_seconds)
        if isinstance(report, RunUpdate):
            return take_update(session, run_id, report, claim=claim, cache=cache, limits=limits)
        return take_report(
            session,
            run_id,
            report,
            claim=claim,
            cache=cache,
            max_metrics=settings.max_metrics,
            undelivered_bytes=undelivered_bytes,
        )

    def lock(session: Session, run_ids: Sequence[str]) -> None:
        cache.lock_ahead(session, run_ids, clock())

    return ReportQueue(engine, take, lock, timer=metrics.time_transaction)
