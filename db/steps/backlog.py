"""Rows that no report packs: the last ones of runs that have ended or were killed.

The caller has locked the run, and owns the transaction.
"""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import run_states
from db.models import Run, Segment
from db.steps import rollups, writer

MIN_ROWS = 16
"""Minimum rows to pack: fewer weigh less than a block with its metrics."""
SEGMENTS_AT_ONCE = 8
"""Segments whose last rows are packed in one transaction, the newest ones: a run that ends may have thousands, and its
trainer waits."""

NUM_ROWS = Segment.num_steps - Segment.num_packed
HAS_LAST_ROWS = NUM_ROWS >= MIN_ROWS


def _is_waiting(stopped_before: float) -> sa.ColumnElement[bool]:
    """Return SQL that is true if a segment has rows that no report will pack."""
    return sa.and_(HAS_LAST_ROWS, run_states.has_stopped_in_sql(stopped_before))


def waiting_runs(session: Session, *, stopped_before: float = 0.0) -> list[str]:
    """The ids of the runs that have such segments, the oldest run first (see `db.run_states.stopped_before`)."""
    found = sa.select(Run.id).where(sa.exists().where(Segment.run_pk == Run.pk, _is_waiting(stopped_before)))
    return list(session.scalars(found.order_by(Run.pk)))


def pack_some(session: Session, *, run: Run, stopped_before: float = 0.0) -> int | None:
    """Pack the rows of one segment of the run: how many; None when nothing is left to pack."""
    found = sa.select(Segment).join(Run, Run.pk == Segment.run_pk)
    found = found.where(Segment.run_pk == run.pk, _is_waiting(stopped_before))
    segment = session.scalar(found.order_by(Segment.number).limit(1))
    if segment is None:
        return None
    return writer.pack_rows(session, segment, rollups.metric_numbers(session, run_pk=run.pk))


class PackCandidate(NamedTuple):
    """A run that was looked at."""

    pk: int
    id: str
    is_waiting: bool
    """True if no report is awaited of it, and it has last rows to be packed."""


def look(session: Session, *, after: int, limit: int, stopped_before: float) -> list[PackCandidate]:
    """The `limit` runs that follow the key `after`: what a look costs does not grow with the store."""
    columns = Run.pk, Run.id, run_states.has_stopped_in_sql(stopped_before).label("has_stopped")
    some = sa.select(*columns).where(Run.pk > after).order_by(Run.pk).limit(limit).subquery()
    has_rows = sa.exists().where(Segment.run_pk == some.c.pk, HAS_LAST_ROWS)
    found = sa.select(some.c.pk, some.c.id, sa.and_(some.c.has_stopped, has_rows)).order_by(some.c.pk)
    return [PackCandidate(pk, run_id, bool(is_waiting)) for pk, run_id, is_waiting in session.execute(found)]


def pack_last_rows(session: Session, *, run: Run) -> int:
    """Pack the last rows of a run that ends now, or has stopped: how many."""
    found = sa.select(Segment).where(Segment.run_pk == run.pk, HAS_LAST_ROWS)
    segments = session.scalars(found.order_by(Segment.number.desc()).limit(SEGMENTS_AT_ONCE)).all()
    numbers = rollups.metric_numbers(session, run_pk=run.pk) if segments else {}
    return sum(writer.pack_rows(session, one, numbers) for one in segments)
