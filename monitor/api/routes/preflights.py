"""Facts about a proposed intervention for the person who approves it."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path

from db.models import Intervention, Run
from db.records import preflights
from monitor.api.auth import Reader
from monitor.api.dependencies import Now, ReadSession
from monitor.api.parsing import TypedJsonRoute
from monitor.detection.interventions.preflight import Known, preflight
from monitor.ingestion import order_terms
from monitor.problems import unknown
from monitor.schemas import RecordId

router = APIRouter(tags=["orders"], route_class=TypedJsonRoute)


@router.get("/interventions/{intervention_id}/preflight")
def show(intervention_id: Annotated[RecordId, Path()], _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """Whether the checkpoint is still there, what a rollback and waiting cost, what is skipped, what speaks against it.

    While a rollback waits for approval, its trainer is asked every few seconds.
    """
    intervention = session.get(Intervention, intervention_id)
    if intervention is None:
        raise unknown("intervention", intervention_id)
    run = session.get_one(Run, intervention.run_pk)
    known = Known(**preflights.known(session, run=run, intervention=intervention, now=now))
    terms = order_terms.of(session)
    found = asdict(preflight(known.on_terms(terms.seconds, terms.steps)))
    texts = [{"batch": batch, "text": text} for batch, text in found["texts"]]
    proposal = {"run": run.id, "incident": intervention.incident, "state": intervention.state}
    return found | proposal | {"texts": texts, "sentences": list(found["sentences"])}
