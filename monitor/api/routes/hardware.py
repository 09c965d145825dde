"""Samples of the hardware of a run's machines."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db import queries
from db.records import hardware
from lossguard.vocabulary.protocol import MAX_TIME
from monitor.api import responses
from monitor.api.auth import Reader
from monitor.api.dependencies import ReadSession
from monitor.problems import unknown
from monitor.schemas import RunId

router = APIRouter(prefix="/runs", tags=["hardware"])


@router.get("/{run_id}/hardware")
def samples(
    run_id: RunId,
    _who: Reader,
    session: ReadSession,
    first: Annotated[float | None, Query(alias="from", ge=0, lt=MAX_TIME)] = None,
    last: Annotated[float | None, Query(alias="to", ge=0, lt=MAX_TIME)] = None,
    errors: bool = False,
) -> list[dict[str, Any]]:
    """The samples from one time to another (unix seconds), oldest first; `errors`: only those that count an error."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    found = hardware.samples(session, run=run, first=first, last=last, errors_only=errors)
    return [responses.hardware(sample) for sample in found]
