"""A run is registered, locked and finished."""

from typing import NamedTuple

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Run
from db.records import live_runs, policies
from lossguard.vocabulary.secrets import mask_command_line, mask_json
from lossguard.vocabulary.states import RunState
from lossguard.vocabulary.values import plain_json
from monitor.ingestion import detection_state, lease, run_policies
from monitor.ingestion.lease import Claim
from monitor.problems import Problem, no_room, unknown
from monitor.schemas import FinishIn, RunIn


class Registration(NamedTuple):
    """A run that has registered."""

    run: Run
    is_new: bool
    policy_problem: str | None = None
    """Reason why the policy that its loop gave is not taken."""


def register(session: Session, spec: RunIn, *, claim: Claim, who: str, max_runs: int | None = None) -> Registration:
    """The run with this id. A process that does not hold the lease changes nothing of it.

    An SDK that does not mask secrets itself may have sent some. Raises Problem 409 when the id belongs to another
    project, 429 when a new run would exceed `max_runs`.
    """
    now = claim.now
    if spec.policy is not None:
        policies.lock(session, key=policies.ALL)  # before the run: a change of a default locks in this order
    run = commands.lock_run(session, run_id=spec.id)
    if run is not None and run.project != spec.project:
        raise taken(spec.id)
    if run is not None and not lease.take(run, claim):
        return Registration(run, is_new=False)
    values = plain_json(spec.model_dump()) | {"policy": None}
    values |= {"command": mask_command_line(values["command"] or "") or None, "config": mask_json(values["config"])}
    run, is_new = commands.register_run(session, values=values, now=now)
    if run.project != spec.project:  # another collector has just created it
        raise taken(spec.id)
    if is_new and max_runs is not None and queries.num_runs(session) > max_runs:
        raise no_room("run", f"the store holds {max_runs}", "delete some, or raise LOSSGUARD_MAX_RUNS", "id")
    lease.take(run, claim)
    status = commands.run_status_of(session, run=run, now=now)
    status.last_step_at, status.stall_after = now, None
    problem = run_policies.begin(session, run, spec.policy, is_new=is_new, who=who, now=now)
    return Registration(run, is_new, problem)


def taken(run_id: str) -> Problem:
    """409: a run id belongs to the project that used it first."""
    detail = f"the run id {run_id!r} is taken by a run of another project; choose another run id"
    return Problem(409, "the run id is taken", detail, ["body", "id"])


def named(session: Session, run_id: str) -> Run:
    """The run with this id. Raises Problem 404 when there is none."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return run


def lock(session: Session, run_id: str) -> Run:
    """The run, locked until the transaction ends. Raises Problem 404 when there is no such run."""
    run = commands.lock_run(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return run


def take_lease(session: Session, run_id: str, *, claim: Claim) -> float:
    """Take or renew the lease of the run: the seconds for which it is valid.

    Raises Problem 404 when there is no such run, and 409 while another process holds the lease.
    """
    run = lock(session, run_id)
    lease.check_holder(run, claim)
    return lease.seconds_left(run, claim.now)


def end_of(run: Run) -> str:
    """A sentence about a run that has ended with an incident of its speed."""
    return f"The run has ended without further steps: {run.state}."


def finish(session: Session, run_id: str, spec: FinishIn, *, claim: Claim) -> Run:
    """The run has ended or was interrupted, unless another process, or a newer one of the same folder, continues it."""
    run = lock(session, run_id)
    if lease.take(run, claim):
        commands.finish_run(session, run=run, state=RunState(spec.state), at=spec.at, now=claim.now)
        lease.release(run, now=claim.now)
        if live_runs.is_stalled_or_slow(session, run_pk=run.pk):  # no step is missing any more, and none is slow
            detection_state.update(session, run, lambda engine: engine.end_run(end_of(run)), now=claim.now)
    return run
