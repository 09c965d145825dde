"""The collector as an ASGI application. Importing this module creates nothing."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session

from db.engine import create_engine
from lossguard.protocol import API
from monitor import problems
from monitor.api.auth import Attempts
from monitor.api.headers import Headers
from monitor.api.limits import Limits
from monitor.api.routes import audit, export, health, orders, runs, series
from monitor.ingestion.queue import ReportQueue
from monitor.ingestion.reports import Receipt, take_report
from monitor.ingestion.run_cache import RunCache
from monitor.schemas import ReportIn
from monitor.settings import Settings
from monitor.telemetry.logs import Requests
from monitor.telemetry.process_metrics import Counters, Measured
from monitor.telemetry.run_metrics import RunsCollector


class Collector(FastAPI):
    """With the shape of errors in its description."""

    def openapi(self) -> dict[str, Any]:
        description = super().openapi()
        description["components"]["schemas"]["Problem"] = problems.SCHEMA
        return description


def create_app(
    settings: Settings,
    *,
    engine: sa.Engine | None = None,
    registry: CollectorRegistry | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The application over a store whose schema is up to date; `clock` tells unix seconds."""
    engine = engine or create_engine(settings.database_url)
    registry = registry or CollectorRegistry()
    registry.register(RunsCollector(engine, limit=settings.max_runs_in_metrics, clock=clock))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    # The description is served by routes of our own, which ask for a token as all others do.
    app = Collector(
        title="Lossguard collector", version="1", lifespan=lifespan, openapi_url=None, responses=problems.RESPONSES
    )
    app.state.settings, app.state.engine, app.state.clock = settings, engine, clock
    app.state.registry, app.state.counters = registry, Counters(registry)
    problems.install(app)
    app.add_middleware(Limits, settings=settings)
    app.add_middleware(Headers)
    app.add_middleware(Measured, counters=app.state.counters)
    app.add_middleware(Requests)
    app.state.attempts = Attempts()
    app.state.desks = desks = RunCache()
    take = partial(_take_report, settings, clock, desks)
    app.state.intake = ReportQueue(
        engine,
        take,
        lambda session, run_ids: desks.lock(session, run_ids, clock()),
        timed=app.state.counters.transaction,
    )
    for router in (runs.router, series.router, export.router, orders.router, audit.router):
        app.include_router(router, prefix=API)
    app.include_router(health.router)
    return app


def _take_report(
    settings: Settings,
    clock: Callable[[], float],
    desks: RunCache,
    session: Session,
    run_id: str,
    report: ReportIn,
    left: int | None,
) -> Receipt:
    limit = settings.max_metrics
    return take_report(session, run_id, report, now=clock(), desks=desks, max_metrics=limit, left=left)
