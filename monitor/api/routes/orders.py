"""Answers to orders, and the decisions of people."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from monitor.actions import decisions
from monitor.api import responses
from monitor.api.auth import Operator, Reporter
from monitor.api.dependencies import Claimed, Now, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.ingestion import answers
from monitor.schemas import AnswerIn, HoldIn, RecordId, RollbackIn, RunId

router = APIRouter(tags=["orders"], route_class=TypedJsonRoute)
InterventionId = Annotated[RecordId, Path()]


@router.put("/orders/{order_id}")
def answer(
    order_id: Annotated[RecordId, Path()], spec: AnswerIn, who: Reporter, session: WriteSession, claim: Claimed
) -> dict[str, Any]:
    """The trainer reports what it did about an order."""
    return responses.record(answers.take_answer(session, order_id, spec, claim=claim, who=who.author))


@router.post("/interventions/{intervention_id}/approve")
def approve(intervention_id: InterventionId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Approve a proposed intervention: it is ordered."""
    row = decisions.decide(session, intervention_id, approved=True, who=who.author, now=now)
    return responses.record(row)


@router.post("/interventions/{intervention_id}/reject")
def reject(intervention_id: InterventionId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Reject a proposed intervention."""
    row = decisions.decide(session, intervention_id, approved=False, who=who.author, now=now)
    return responses.record(row)


@router.post("/runs/{run_id}/rollback")
def roll_back(run_id: RunId, spec: RollbackIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Order a rollback; with `dry_run`, say which step and batches it would be, and order nothing."""
    if spec.dry_run:
        return decisions.planned_rollback(session, run_id, spec)
    return responses.run(decisions.roll_back(session, run_id, spec, who=who.author, now=now))


@router.post("/runs/{run_id}/hold")
def hold(run_id: RunId, spec: HoldIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Order a hold: the trainer stops at its next step boundary, until the run is released."""
    return responses.run(decisions.hold(session, run_id, spec, who=who.author, now=now))


@router.post("/runs/{run_id}/release")
def release(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """End a hold: the trainer continues where it stopped."""
    return responses.run(decisions.release(session, run_id, who=who.author, now=now))


@router.post("/runs/{run_id}/accept-level")
def accept_level(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """The present level of the loss is the new normal: it is learnt at once, and its incident ends."""
    return responses.run(decisions.accept_level(session, run_id, who=who.author, now=now))


@router.post("/runs/{run_id}/accept-replay")
def accept_replay(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Accept that recomputed steps differ from their record: the incident ends, and such a difference is normal."""
    return responses.run(decisions.accept_replay(session, run_id, who=who.author, now=now))
