"""Notes of people at steps of a run. The caller owns the transaction, and has locked the run to write.

A note belongs to a run and a step, not to a segment: it stays where it is when the step is discarded or trained again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Author, Base, BigInt, Key, LongText, OfRun, Run, Segment, Time


class StepNote(Base):
    """A note of a person at a step of a run."""

    __tablename__ = "step_notes"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[Key]
    """Never used again after a deletion: a deletion that is sent twice must not delete the next note."""
    run_pk: Mapped[OfRun] = mapped_column(index=True)
    step: Mapped[BigInt]
    text: Mapped[LongText]
    author: Mapped[Author]
    """Author as named in the audit trail."""
    created_at: Mapped[Time]


def step_notes(session: Session, *, run: Run) -> Sequence[StepNote]:
    """The notes of a run by step, those of one step in the order in which they were written."""
    found = sa.select(StepNote).where(StepNote.run_pk == run.pk)
    return session.scalars(found.order_by(StepNote.step, StepNote.id)).all()


def num_step_notes(session: Session, *, run: Run) -> int:
    found = sa.select(sa.func.count()).select_from(StepNote).where(StepNote.run_pk == run.pk)
    return session.scalar(found) or 0


def step_note(session: Session, *, run: Run, note_id: int) -> StepNote | None:
    """The note with this id, if it is one of the run's."""
    return session.scalar(sa.select(StepNote).where(StepNote.run_pk == run.pk, StepNote.id == note_id))


def add_step_note(session: Session, *, run: Run, step: int, text: str, author: str, now: float) -> StepNote:
    note = StepNote(run_pk=run.pk, step=step, text=text, author=author, created_at=now)
    session.add(note)
    session.flush()
    return note


def delete_step_note(session: Session, *, note: StepNote) -> None:
    session.delete(note)
    session.flush()


def last_step(session: Session, *, run: Run) -> int | None:
    """The highest step that the run has trained, discarded branches included; None before the first."""
    return session.scalar(sa.select(sa.func.max(Segment.last_step)).where(Segment.run_pk == run.pk))
