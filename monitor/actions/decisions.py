"""An operator's decisions about a run: approve, reject, roll back, hold, release, accept, delete."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Intervention, Run
from db.records import access
from lossguard.vocabulary.protocol import LEVEL_ACCEPTED
from lossguard.vocabulary.states import IncidentKind, RunState
from monitor.detection import DetectionEngine, Effect, IllegalTransition
from monitor.ingestion import lease, runs
from monitor.ingestion.run_state import detection_state
from monitor.problems import not_possible, unknown
from monitor.schemas import HoldIn, RollbackIn


def decide(session: Session, intervention_id: int, *, approved: bool, who: str, now: float) -> Intervention:
    """Approve or reject a proposed intervention. Raises Problem 409 when it is not waiting for a decision."""
    intervention = session.get(Intervention, intervention_id)
    if intervention is None:
        raise unknown("intervention", intervention_id)
    run = runs.lock(session, session.get_one(Run, intervention.run_pk).id)
    session.refresh(intervention)
    number = intervention.number

    def act(engine: DetectionEngine) -> list[Effect]:
        return engine.approve(number) if approved else engine.reject(number)

    _act(session, run, act, "approve" if approved else "reject", {"intervention": number}, who, now)
    session.refresh(intervention)
    return intervention


def roll_back(session: Session, run_id: str, spec: RollbackIn, *, who: str, now: float) -> Run:
    """Order a rollback. Raises Problem 409 when the run cannot roll back, or no checkpoint fits."""
    run, given = runs.lock(session, run_id), spec.model_dump(exclude={"dry_run"})
    return _act(session, run, lambda engine: engine.rollback(**given), "rollback", given, who, now)


def planned_rollback(session: Session, run_id: str, spec: RollbackIn) -> dict[str, int | None]:
    """The step and the batches of the rollback that `roll_back` would order. Raises Problem 409 as that does."""
    engine = detection_state.load(session, runs.lock(session, run_id))
    _checked(lambda engine: engine.rollback(**spec.model_dump(exclude={"dry_run"})))(engine)
    planned = engine.interventions.active
    assert planned is not None
    return {"rewind_to": planned.rewind_to, "skip_from": planned.skip_from, "skip_to": planned.skip_to}


def hold(session: Session, run_id: str, spec: HoldIn, *, who: str, now: float) -> Run:
    """Stop the run at its next step boundary. Raises Problem 409 when it has ended, cannot be held, or is held."""
    run = runs.lock(session, run_id)
    if run.state != RunState.RUNNING:
        raise not_possible(f"the run is not running (it is {run.state}): there is nothing to hold")
    return _act(session, run, lambda engine: engine.hold(spec.reason), "hold", spec.model_dump(), who, now)


def release(session: Session, run_id: str, *, who: str, now: float) -> Run:
    """End a hold: the trainer continues where it stopped. Raises Problem 409 when the run is not held."""
    return _act(session, runs.lock(session, run_id), lambda engine: engine.release(), "release", {}, who, now)


def accept_level(session: Session, run_id: str, *, who: str, now: float) -> Run:
    """The present level of the loss is the new normal. Raises Problem 409 when no incident of the loss is open."""
    run = runs.lock(session, run_id)
    segment = queries.newest_segment(session, run=run)
    step = 0
    if segment is not None:
        step = (segment.fork_step or 0) if segment.last_step is None else segment.last_step + 1
    _act(session, run, lambda engine: engine.accept_level(), "accept-level", {"step": step}, who, now)
    assert segment is not None  # an incident was open
    key = f"accept-level-{segment.number}-{step}"
    place: dict[str, Any] = {"segment": segment.number, "step": step, "time": now}
    commands.add_event(session, run=run, key=key, kind=LEVEL_ACCEPTED, details={"who": who}, **place)
    return run


def accept_replay(session: Session, run_id: str, *, who: str, now: float) -> Run:
    """The difference of the last replay is normal for this run, and batches may be skipped again.

    Raises Problem 409 when no mismatch is open and the data of the run repeats.
    """
    run = runs.lock(session, run_id)
    incidents = queries.incidents(session, run=run)
    mismatches = [each.number for each in incidents if each.kind == IncidentKind.REPLAY_MISMATCH]
    details = {"incident": max(mismatches, default=None)}
    return _act(session, run, lambda engine: engine.accept_replay(), "accept-replay", details, who, now)


def _act(
    session: Session,
    run: Run,
    act: Callable[[DetectionEngine], list[Effect]],
    action: str,
    details: dict[str, Any],
    who: str,
    now: float,
) -> Run:
    """Do what was decided, and keep it in the audit trail. Raises Problem 409 if it is not possible."""
    detection_state.update(session, run, _checked(act), now=now, approved_by=who)
    access.record(session, who=who, action=action, run=run.id, details=details, now=now)
    return run


def _checked(act: Callable[[DetectionEngine], list[Effect]]) -> Callable[[DetectionEngine], list[Effect]]:
    """Return the decision if it is possible. Raises Problem 409 otherwise."""

    def checked(engine: DetectionEngine) -> list[Effect]:
        try:
            return act(engine)
        except (IllegalTransition, ValueError) as error:
            raise not_possible(str(error)) from None

    return checked


def end_lease(session: Session, run_id: str, *, who: str, now: float) -> Run:
    """Take the run from the process that holds its lease. The audit trail keeps from which."""
    run = runs.lock(session, run_id)
    details = {"process": run.lease_process, "seconds_left": lease.seconds_left(run, now)}
    lease.end(run, now=now)
    access.record(session, who=who, action="end lease", run=run.id, details=details, now=now)
    return run


def delete(session: Session, run_id: str, *, who: str, now: float) -> None:
    """Delete a run and all that belongs to it; the audit trail keeps that it was deleted, and by whom."""
    access.record(session, who=who, action="delete", run=run_id, details={}, now=now)
    commands.delete_run(session, run=runs.lock(session, run_id))
