"""Orders and what leads to them: the answers of trainers, the decisions of people, and the policies."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from db.models import Intervention, Run
from db.records import preflights
from monitor import schemas
from monitor.actions import decisions, policies
from monitor.api import auth, responses
from monitor.api.auth import Operator, Reader, Reporter
from monitor.api.dependencies import Claimed, Now, ReadSession, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.detection.interventions.preflight import Known, preflight
from monitor.ingestion import answers
from monitor.ingestion.orders import terms_of
from monitor.problems import unknown
from monitor.schemas import AnswerIn, HoldIn, Name, RecordId, RollbackIn, RunId

router = APIRouter(tags=["orders"], route_class=TypedJsonRoute)
of_policies = APIRouter(tags=["policies"], route_class=TypedJsonRoute)


@router.put("/orders/{order_id}")
def answer(order_id: RecordId, spec: AnswerIn, who: Reporter, session: WriteSession, claim: Claimed) -> dict[str, Any]:
    """The trainer reports what it did about an order."""
    return responses.record(answers.take_answer(session, order_id, spec, claim=claim, who=who.author))


@router.get("/interventions/{intervention_id}/preflight")
def show(intervention_id: RecordId, _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """Whether the checkpoint is still there, what a rollback and waiting cost, what is skipped, what speaks against it.

    While a rollback waits for approval, its trainer is asked every few seconds.
    """
    intervention = session.get(Intervention, intervention_id)
    if intervention is None:
        raise unknown("intervention", intervention_id)
    run = session.get_one(Run, intervention.run_pk)
    known = Known(**preflights.known(session, run=run, intervention=intervention, now=now))
    terms = terms_of(session)
    found = asdict(preflight(known.on_terms(terms.seconds, terms.steps)))
    texts = [{"batch": batch, "text": text} for batch, text in found["texts"]]
    proposal = {"run": run.id, "incident": intervention.incident, "state": intervention.state}
    return found | proposal | {"texts": texts, "sentences": list(found["sentences"])}


@router.post("/interventions/{intervention_id}/approve")
def approve(intervention_id: RecordId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Approve a proposed intervention: it is ordered."""
    row = decisions.decide(session, intervention_id, approved=True, who=who.author, now=now)
    return responses.record(row)


@router.post("/interventions/{intervention_id}/reject")
def reject(intervention_id: RecordId, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
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


class OfProject(schemas.Body):
    """A misspelt name must not change the collector's values."""

    project: Name | None = None


Fields = Annotated[schemas.Json, Body()]
Layer = Annotated[OfProject, Query()]


@of_policies.get("/policy")
def show_defaults(who: Reader, session: ReadSession, query: Layer) -> dict[str, Any]:
    """The policy of new runs, of this project or of any, with the layer that each value comes from."""
    auth.check_policy_of(who, query.project)
    return policies.show(session, project=query.project)


@of_policies.put("/policy")
def set_defaults(fields: Fields, who: Operator, session: WriteSession, now: Now, query: Layer) -> dict[str, Any]:
    """Change values of a project, or without one of the collector; null removes a value. Running runs follow."""
    auth.check_policy_of(who, query.project)
    policies.set_default(session, query.project, fields, who=who.author, now=now)
    return policies.show(session, project=query.project)


@of_policies.get("/runs/{run_id}/policy")
def show_policy(run_id: RunId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """The policy of a run, with the layer that each value comes from."""
    return policies.show(session, run_id=run_id)


@of_policies.put("/runs/{run_id}/policy")
def set_policy(run_id: RunId, fields: Fields, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Change values of the run, and under `detection` what counts as an incident; null removes a value."""
    return policies.set_of_run(session, run_id, fields, who=who.author, now=now)
