"""Rows that nobody packs by the way: those of runs that have ended, and those of an earlier release.

The caller has locked the run, and owns the transaction.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run, Segment
from db.steps import packing, rollups
from lossguard.states import RunState

MIN_ROWS = 16
"""So few rows weigh less than a block with its metrics."""
ROWS_AT_ONCE = 4096
"""Rows packed in one transaction, of a run with a handful of metrics: some tenths of a second."""
VALUES_AT_ONCE = 100_000
"""The same of a run with many metrics."""
MAX_SEGMENTS_AT_END = 8
"""Segments that are packed when a run ends, the newest ones: it may have thousands, and its trainer waits."""

NUM_ROWS = Segment.num_steps - Segment.num_packed


def _is_waiting() -> sa.ColumnElement[bool]:
    """Whether a segment has rows that no report will pack."""
    has_ended = Run.state != RunState.RUNNING
    return sa.and_(NUM_ROWS >= MIN_ROWS, sa.or_(~Segment.has_blocks, has_ended, NUM_ROWS >= packing.MAX_ROWS))


def waiting_runs(session: Session) -> list[str]:
    """The ids of the runs that have such segments, the oldest run first."""
    found = sa.select(Run.id).where(sa.exists().where(Segment.run_pk == Run.pk, _is_waiting()))
    return list(session.scalars(found.order_by(Run.pk)))


def pack_some(session: Session, *, run: Run) -> int | None:
    """Pack some rows of the run, those of one segment: how many; None when nothing is left to pack."""
    found = sa.select(Segment).join(Run, Run.pk == Segment.run_pk).where(Segment.run_pk == run.pk, _is_waiting())
    segment = session.scalar(found.order_by(Segment.number).limit(1))
    if segment is None:
        return None
    segment.has_blocks = True  # from now on its finer roll-ups are not read
    numbers = rollups.metric_numbers(session, run_pk=run.pk)
    max_steps = min(ROWS_AT_ONCE, max(packing.PACK_AT, VALUES_AT_ONCE // max(len(numbers), 1)))
    return packing.pack_rows(session, segment, numbers, max_steps=max_steps)


def pack_ended(session: Session, *, run: Run) -> None:
    """Pack the rest of a run that ends now."""
    found = sa.select(Segment).where(Segment.run_pk == run.pk, Segment.has_blocks, NUM_ROWS >= MIN_ROWS)
    for segment in session.scalars(found.order_by(Segment.number.desc()).limit(MAX_SEGMENTS_AT_END)):
        numbers = rollups.metric_numbers(session, run_pk=run.pk)
        packing.pack_rows(session, segment, numbers, max_steps=packing.MAX_ROWS)
