"""Orders and the decisions of a person."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path

from monitor.actions import decisions
from monitor.api import responses
from monitor.api.auth import Operator, Reporter
from monitor.api.dependencies import Now, Writing
from monitor.api.parsing import Route
from monitor.ingestion import reports
from monitor.schemas import AnswerIn, Json, RecordId, RollbackIn, RunId

router = APIRouter(tags=["orders"], route_class=Route)
InterventionId = Annotated[RecordId, Path()]


@router.put("/orders/{order_id}")
def answer(
    order_id: Annotated[RecordId, Path()], spec: AnswerIn, _who: Reporter, session: Writing, now: Now
) -> dict[str, Any]:
    """The trainer says what it did about an order."""
    return responses.record(reports.take_answer(session, order_id, spec, now=now))


@router.post("/interventions/{intervention_id}/approve")
def approve(intervention_id: InterventionId, who: Operator, session: Writing, now: Now) -> dict[str, Any]:
    """Let a proposed intervention be ordered."""
    row = decisions.decide(session, intervention_id, approved=True, who=who.name, now=now)
    return responses.record(row)


@router.post("/interventions/{intervention_id}/reject")
def reject(intervention_id: InterventionId, who: Operator, session: Writing, now: Now) -> dict[str, Any]:
    """Drop a proposed intervention."""
    row = decisions.decide(session, intervention_id, approved=False, who=who.name, now=now)
    return responses.record(row)


@router.post("/runs/{run_id}/rollback")
def roll_back(run_id: RunId, wish: RollbackIn, who: Operator, session: Writing, now: Now) -> dict[str, Any]:
    """A person's order to roll back."""
    return responses.run(decisions.roll_back(session, run_id, wish, who=who.name, now=now))


@router.post("/runs/{run_id}/release")
def release(run_id: RunId, who: Operator, session: Writing, now: Now) -> dict[str, Any]:
    """End a hold: the trainer goes on from where it stands."""
    return responses.run(decisions.release(session, run_id, who=who.name, now=now))


@router.put("/runs/{run_id}/policy")
def set_policy(
    run_id: RunId, wish: Annotated[Json, Body()], who: Operator, session: Writing, now: Now
) -> dict[str, Any]:
    """Change the rule from incidents to interventions; under `detection`, what counts as an incident."""
    return decisions.set_policy(session, run_id, wish, who=who.name, now=now)
