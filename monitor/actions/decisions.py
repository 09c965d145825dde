"""What a person decides about a run: approve, reject, roll back, release, change the policy, delete."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from db import access, commands, queries
from db.models import Intervention, Run
from monitor.detection import DetectionEngine, Effect, IllegalTransition
from monitor.detection.interventions import run_policy
from monitor.ingestion import detection_state
from monitor.ingestion.reports import locked
from monitor.problems import Problem, unknown
from monitor.schemas import RollbackIn


def decide(session: Session, intervention_id: int, *, approved: bool, who: str, now: float) -> Intervention:
    """Approve or reject a proposed intervention. Raises Problem 409 when it is not waiting for a decision."""
    intervention = session.get(Intervention, intervention_id)
    if intervention is None:
        raise unknown("intervention", intervention_id)
    run = locked(session, session.get_one(Run, intervention.run_pk).id)
    session.refresh(intervention)
    verb = DetectionEngine.approve if approved else DetectionEngine.reject
    _act(session, run, lambda watch: verb(watch, intervention.number), now)
    action = "approve" if approved else "reject"
    access.record(session, who=who, action=action, run=run.id, details={"intervention": intervention.number}, now=now)
    session.refresh(intervention)
    return intervention


def roll_back(session: Session, run_id: str, wish: RollbackIn, *, who: str, now: float) -> Run:
    """A person's order to roll back."""
    run = locked(session, run_id)
    _act(
        session,
        run,
        lambda watch: watch.rollback(rewind_to=wish.rewind_to, skip_to=wish.skip_to, reason=wish.reason),
        now,
    )
    access.record(session, who=who, action="rollback", run=run.id, details=wish.model_dump(), now=now)
    return run


def release(session: Session, run_id: str, *, who: str, now: float) -> Run:
    """End a hold: the trainer goes on from where it stands."""
    run = locked(session, run_id)
    _act(session, run, lambda watch: watch.release(), now)
    access.record(session, who=who, action="release", run=run.id, details={}, now=now)
    return run


def set_policy(session: Session, run_id: str, wish: dict[str, Any], *, who: str, now: float) -> dict[str, Any]:
    """Change the run's rule; fields that are not named keep their values. Raises Problem 422 for a bad field."""
    run = locked(session, run_id)
    try:
        changed = run_policy.changed(run.policy, wish)
    except (TypeError, ValueError) as error:
        raise Problem(422, "the policy is malformed; nothing was changed", str(error), ["body"]) from None
    watch = detection_state.bring_up(session, run)  # under the rule that its rows were judged by
    run.policy = changed
    access.record(session, who=who, action="policy", run=run.id, details=changed, now=now)
    detection_state.put_down(session, run, watch, [], segment=queries.newest_segment(session, run=run), now=now)
    return changed


def _act(session: Session, run: Run, do: Callable[[DetectionEngine], list[Effect]], now: float) -> None:
    watch = detection_state.bring_up(session, run)
    try:
        effects = do(watch)
    except (IllegalTransition, ValueError) as error:
        raise Problem(409, "not possible now; nothing was changed", str(error), ["path"]) from None
    newest = queries.newest_segment(session, run=run)
    detection_state.put_down(session, run, watch, effects, segment=newest, now=now)


def delete(session: Session, run_id: str, *, who: str, now: float) -> None:
    """Delete a run and all that belongs to it; that it was deleted stays in the audit trail."""
    access.record(session, who=who, action="delete", run=run_id, details={}, now=now)
    commands.delete_run(session, run=locked(session, run_id))
