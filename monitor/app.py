"""The collector as an ASGI application. Importing this module creates nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from db.store.engine import StoreClock, create_engine
from monitor import problems
from monitor.api import routes
from monitor.api.auth import Authentication
from monitor.api.dependencies import Collector
from monitor.api.plain_reports import PlainReports
from monitor.api.request_limits import RequestLimits
from monitor.api.requests import ProcessMetrics, Requests
from monitor.ingestion.orders import OrderTerms
from monitor.ingestion.queue import Intake, ReportQueue
from monitor.ingestion.run_updates import RunLimits
from monitor.ingestion.waiting_rows import WaitingRows
from monitor.leader.background import Background, FileRemoval, LastRows
from monitor.leader.leadership import Leadership
from monitor.leader.stall_check import look
from monitor.settings import Settings
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
    metrics = ProcessMetrics(registry)
    limits = RunLimits(max_metrics=settings.max_metrics, max_segments=settings.max_segments)
    intake = Intake(clock, limits, lease_seconds=settings.lease_seconds)
    reports = ReportQueue(engine, intake, timer=metrics.time_transaction)
    collector = Collector(
        settings=settings,
        engine=engine,
        clock=clock,
        registry=registry,
        metrics=metrics,
        run_metrics=RunMetrics(engine, limit=settings.max_runs_in_metrics, clock=clock),
        reports=reports,
        waiting_rows=WaitingRows(engine, reports, clock),
        needs_token=settings.token is not None,
    )
    in_background = (
        Background("file-removal", FileRemoval(engine).remove),
        Background("packing", LastRows(engine).pack),
    )
    leadership = Leadership(
        engine, partial(look, engine), in_background=in_background, observe_clock=store_clock.observe
    )
    metrics.leader.set_function(lambda: float(leadership.is_leader))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stopped = asyncio.Event()
        watch = asyncio.create_task(collector.waiting_rows.watch(stopped))
        if clock is store_clock:  # stalls are judged by the clock of the database
            leadership.start()
        yield
        await run_in_threadpool(leadership.stop)
        stopped.set()
        await watch
        engine.dispose()

    # The OpenAPI document is served by routes of our own, which require a token like all others.
    app = CollectorApp(title="Lossguard collector", version="1", lifespan=lifespan, openapi_url=None)
    app.state.collector = collector
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(PlainReports, reports=reports, metrics=metrics)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(Authentication)
    app.add_middleware(Requests, metrics=metrics)
    # Not `include_router`, which would assemble them anew for every application.
    app.router.routes.extend(routes.router.routes)
    return app
