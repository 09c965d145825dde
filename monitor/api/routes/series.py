"""Metrics over steps."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db import queries
from db.lineage import StepRange
from lossguard.vocabulary.protocol import MAX_STEP
from monitor.api import responses
from monitor.api.auth import Reader
from monitor.api.dependencies import ReadSession
from monitor.problems import unknown
from monitor.schemas import Name, RunId

router = APIRouter(prefix="/runs", tags=["series"])


@router.get("/{run_id}/series")
def series(
    run_id: RunId,
    _who: Reader,
    session: ReadSession,
    metric: Name,
    first: Annotated[int | None, Query(alias="from", ge=0, lt=MAX_STEP)] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, lt=MAX_STEP)] = None,
    points: Annotated[int, Query(ge=1, le=20_000)] = 1500,
    segment: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> dict[str, Any]:
    """A metric over the live line, or over one whole segment, in at most about `points` buckets with exact values."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    step_ranges = queries.live(session, run=run) if segment is None else [StepRange(segment, 0, None)]
    return responses.series(
        queries.series(session, run=run, step_ranges=step_ranges, metric=metric, first=first, last=last, points=points)
    )
