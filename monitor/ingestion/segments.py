"""A trainer opens a segment: at its start, after a resume, a rollback or a rewind."""

from functools import partial

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Run, Segment
from lossguard.vocabulary.states import OrderKind, OrderState, SegmentReason
from monitor.ingestion import detection_state, lease, orders, runs
from monitor.ingestion.lease import Claim
from monitor.problems import Problem, no_room
from monitor.schemas import SegmentIn

MAX_TAKEN_KEY = 112
"""Characters of a key to which the number of its segment is added."""


def open_segment(
    session: Session, run_id: str, spec: SegmentIn, *, claim: Claim, max_segments: int | None = None
) -> Segment:
    """The segment with this key. When it is new, the detection returns to its state before the fork.

    A segment whose first step is not known yet forks with its first report, see `reports`.
    Raises Problem 409 when it names an order that it cannot have executed, 429 when the run has `max_segments`.
    """
    run = runs.lock(session, run_id)
    if (known := _known(session, run, spec.key, claim)) is not None:
        lease.take(run, claim)
        return known
    if max_segments is not None and queries.num_segments(session, run=run) >= max_segments:
        remedy = "begin a new run, or raise LOSSGUARD_MAX_SEGMENTS"
        raise no_room("segment", f"the run has {max_segments}", remedy, "key")
    segment, _ = commands.open_segment(
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
