"""Whether the collector lives, whether it can serve, and its metrics for Prometheus."""

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from db import migrate

open_router = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])


@open_router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request, response: Response) -> dict[str, str]:
    """The database answers and has the schema that this release needs."""
    try:
        current, newest = migrate.revisions(request.app.state.engine)
    except sa.exc.SQLAlchemyError as error:
        response.status_code = 503
        return {"status": "the database is away", "detail": type(error).__name__}
    if current != newest:
        response.status_code = 503
        return {"status": "the schema is old", "detail": f"at {current}, needs {newest}; run: python -m db upgrade"}
    return {"status": "ready"}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
