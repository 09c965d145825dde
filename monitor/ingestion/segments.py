"""A trainer opens a segment: at its start, after a resume, a rollback or a rewind."""

from functools import partial

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Segment
from monitor.ingestion import detection_state, runs
from monitor.schemas import SegmentIn


def open_segment(session: Session, run_id: str, spec: SegmentIn, *, now: float) -> Segment:
    """The segment with this key. When it is new, the detection returns to its state before the fork.

    A segment whose first step is not known yet forks with its first report, see `reports`.
    """
    run = runs.lock(session, run_id)
    segment, is_new = commands.open_segment(
        session,
        run=run,
        key=spec.key,
        fork_step=spec.fork_step,
        reason=spec.reason,
        order_id=spec.order,
        opened_at=spec.opened_at,
    )
    if is_new and segment.number > 0 and segment is queries.newest_segment(session, run=run):
        fork = partial(detection_state.fork, session, run, segment=segment)
        detection_state.update(session, run, fork, now=now)
    return segment
