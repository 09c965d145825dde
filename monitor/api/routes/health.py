"""Liveness, readiness, metrics for Prometheus, and the description of the API."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from db import migrate
from monitor.api import auth
from monitor.api.auth import Reader
from monitor.api.dependencies import Shared
from monitor.problems import no_database, no_schema

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:  # not in a thread: it answers also while all threads are busy
    """The process is running."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(collector: Shared, _who: Reader) -> dict[str, str]:
    """The database answers and has a schema that this release may use, which may be a newer one; else 503, and which of
    the two is missing."""
    try:
        reason = migrate.misfit(collector.engine)
    except sa.exc.SQLAlchemyError as error:
        detail = f"it does not answer ({type(error).__name__}); check that it runs, and LOSSGUARD_DATABASE_URL"
        raise no_database(detail) from None
    if reason is not None:
        raise no_schema(reason)
    return {"status": "ready"}


@router.get("/metrics")
def metrics(collector: Shared, who: Reader) -> Response:
    """Metrics of all projects in the Prometheus text format."""
    auth.check_unbound(who, "the list of metrics")
    text = collector.run_metrics.text() + generate_latest(collector.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, _who: Reader) -> dict[str, Any]:
    """The description of the API."""
    description: dict[str, Any] = request.app.openapi()
    return description


@router.get("/docs", include_in_schema=False)
def docs(_who: Reader) -> Response:
    """The description of the API as a web page."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="Lossguard collector")
