"""A run is registered, locked and finished; its trainer opens segments: at its start, after a resume or a rollback."""

from functools import partial
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Run, Segment
from db.records import live_runs, policies
from lossguard.vocabulary.protocol import plain_json
from lossguard.vocabulary.secrets import mask_command_line, mask_json
from lossguard.vocabulary.states import OrderKind, OrderState, RunState, SegmentReason
from monitor.ingestion import lease, orders
from monitor.ingestion.lease import Claim
from monitor.ingestion.run_state import detection_state, run_policies
from monitor.problems import Problem, no_room, unknown
from monitor.schemas import FinishIn, RunIn, SegmentIn


class Registration(NamedTuple):
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
    newest = queries.newest_segment(session, run=run)
    if newest is None or claim.writer is None or not newest.key.startswith(f"{claim.writer.session}-"):
        # Another process begins, and a pause ends with its own. The same one registers again when it can do more.
        status.last_step_at, status.stall_after, status.expected_by = now, None, None
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


MAX_TAKEN_KEY = 112
"""Characters of a key to which the number of its segment is added."""


def open_segment(
    session: Session, run_id: str, spec: SegmentIn, *, claim: Claim, max_segments: int | None = None
) -> Segment:
    """The segment with this key. When it is new, the detection returns to its state before the fork.

    A segment whose first step is not known yet forks with its first report, see `reports`.
    Raises Problem 409 when it names an order that it cannot have executed, 429 when the run has `max_segments`.
    """
    run = lock(session, run_id)
    if (known := _known(session, run, spec.key, claim)) is not None:
        lease.take(run, claim)
        return known
    if max_segments is not None and queries.num_segments(session, run=run) >= max_segments:
        remedy = "begin a new run, or raise LOSSGUARD_MAX_SEGMENTS"
        raise no_room("segment", f"the run has {max_segments}", remedy, "key")
    segment = commands.open_segment(
        session,
        run=run,
        key=spec.key,
        fork_step=spec.fork_step,
        reason=spec.reason,
        order_id=spec.order,
        opened_at=spec.opened_at,
        is_beside=not _check_order(session, run, spec, claim),
        writer=claim.digest,
    )
    if segment.is_beside:
        return segment
    commands.run_status_of(session, run=run, now=claim.now).stall_after = None  # a restore may take its time
    if segment.number > 0 and segment is queries.newest_segment(session, run=run):
        fork = partial(detection_state.fork, session, run, segment=segment, now=claim.now)
        detection_state.update(session, run, fork, now=claim.now)
    return segment


def _known(session: Session, run: Run, key: str, claim: Claim) -> Segment | None:
    """The segment with this key, which its process opens once more.

    Keys are no secret: one that a process without the lease has used already is given up to the holder of the lease.
    """
    known = queries.segment_with_key(session, run=run, key=key)
    if known is None or known.is_of(claim.digest) or not known.is_beside or not lease.take(run, claim):
        return known
    known.key = f"{key[:MAX_TAKEN_KEY]}~{known.number}"
    session.flush()
    return None


def _check_order(session: Session, run: Run, spec: SegmentIn, claim: Claim) -> bool:
    """True if the process may act for the run. Raises Problem 409 when the segment cannot have executed its order.

    Never 404, which tells a trainer that the collector has lost the run.
    """
    if spec.order is None:
        return lease.take(run, claim)
    order = session.get(Order, spec.order)
    if order is None or order.run_pk != run.pk:
        raise _refused(f"the run {run.id!r} has no order {spec.order}", "order")
    lease.check_holder(run, claim)
    if (other := queries.segment_of_order(session, order=order)) is not None:
        raise _refused(f"order {order.id} was carried out by segment {other.number} already", "order")
    if order.kind != OrderKind.ROLLBACK or spec.reason is not SegmentReason.ROLLBACK or spec.fork_step is None:
        raise _refused(f"order {order.id} ({order.kind}) is not carried out by a {spec.reason} segment", "reason")
    if order.state == OrderState.FAILED:
        raise _refused(f"order {order.id} has failed, as the trainer answered", "order")
    about = None if order.segment is None else queries.segment_with_key(session, run=run, key=order.segment)
    if about is not None and not about.is_of(claim.digest):
        raise _refused(f"order {order.id} was decided about the steps of another process", "order")
    if (why := orders.bad_rewind(run, order, spec.fork_step)) is not None:
        raise _refused(why, "fork_step")
    return True


def _refused(detail: str, field: str) -> Problem:
    return Problem(409, "the segment does not fit its order; nothing was stored", detail, ["body", field])
