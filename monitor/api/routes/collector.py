"""The collector itself: its identity, health, metrics and description, its audit trail and its scorecard."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from db import migrate
from db.records.access import trail
from lossguard.run.environment import versions
from lossguard.vocabulary.protocol import MAX_TIME, plain_json
from monitor.api import auth, responses
from monitor.api.auth import Client, Operator, Reader
from monitor.api.dependencies import Now, ReadSession, Shared
from monitor.detection.scorecard import wording
from monitor.problems import no_database, no_schema, unknown
from monitor.schemas import Name, RunId

router = APIRouter()


@router.get("/token", tags=["collector"])
def token(who: Client) -> dict[str, Any]:
    """The name and the scopes of the token of this request, and the project or the run that it is bound to."""
    return {"name": who.name, "scopes": sorted(who.scopes), "project": who.project, "run": who.run}


@router.get("/collector", tags=["collector"])
def collector(_who: Client, now: Now) -> dict[str, Any]:
    """The release of the collector, and its clock (unix seconds)."""
    return {"version": versions().get("lossguard"), "time": now}


@router.get("/audit", tags=["audit"])
def audit(
    who: Operator, session: ReadSession, run: RunId | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> list[dict[str, Any]]:
    """The newest entries first, those of deleted runs included."""
    auth.check_unbound(who, "the audit trail")
    return [responses.record(row) for row in trail(session, run=run, limit=limit)]


@router.get("/scorecard", tags=["scorecard"])
def scorecard(
    who: Reader,
    collector: Shared,
    session: ReadSession,
    project: Name | None = None,
    run: RunId | None = None,
    since: Annotated[float | None, Query(ge=0, le=MAX_TIME)] = None,
) -> dict[str, Any]:
    """The runs of a project, one run, or all; `since`: those that reported at this unix time or later."""
    found = collector.scored_runs.read(
        session, project=who.project if project is None else project, run_id=run or who.run, since=since
    )
    permitted = [each for each in found if who.project in (None, each.project) and who.run in (None, each.id)]
    if run is not None and not permitted:
        raise unknown("run", run)
    scores = [each.score for each in permitted if each.score is not None]
    answer: dict[str, Any] = plain_json(wording.to_dict(scores, num_auto=len(permitted) - len(scores)))
    return answer


health = APIRouter(tags=["health"])
"""Paths that monitoring asks for, beside the API."""


@health.get("/healthz")
async def healthz() -> dict[str, str]:  # not in a thread: it answers also while all threads are busy
    """The process is running."""
    return {"status": "ok"}


@health.get("/readyz")
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


@health.get("/metrics")
def metrics(collector: Shared, who: Reader) -> Response:
    """Metrics of all projects in the Prometheus text format."""
    auth.check_unbound(who, "the list of metrics")
    text = collector.run_metrics.text() + generate_latest(collector.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@health.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, _who: Reader) -> dict[str, Any]:
    """The description of the API."""
    description: dict[str, Any] = request.app.openapi()
    return description


@health.get("/docs", include_in_schema=False)
def docs(_who: Reader) -> Response:
    """The description of the API as a web page."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="Lossguard collector")
