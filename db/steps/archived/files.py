"""The files of archived steps, as the store knows them, and the steps that can be archived."""

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, BigInt, Key, LongText, Str16, Str64, Str128, Time
from db.steps import buckets
from db.store import bulk

# Steps that can be archived. Pure.
#
# All but those that a chart of the whole run reads in full resolution: the narrowest buckets of the roll-ups in which a
# segment begins, ends, or another one forks off. So lists, overviews and the newest step need no file.

BUCKET = buckets.width(buckets.FINEST)
"""Steps in a bucket."""


def archivable(first: int, last: int, forks: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Ranges [low, high) of the segment with the steps `first` to `last`; `forks`: first steps of its children."""
    kept = {last // BUCKET, *(edge // BUCKET for edge in (first, *forks) if edge % BUCKET and first <= edge <= last)}
    found, low = [], first
    for bucket in sorted(kept):
        if low < bucket * BUCKET:
            found.append((low, bucket * BUCKET))
        low = max(low, (bucket + 1) * BUCKET)
    return found


# Files. The caller owns the transaction.
#
# A row is committed before its file is begun, and deleted after its file is removed: every file that may exist has a
# row, whatever is killed. The values that a file holds are deleted from the store in the transaction in which it
# becomes `kept`. When its run is deleted, the row stays without a run until the file is removed.


class FileState(StrEnum):
    """Stage in the life of a file."""

    WRITING = "writing"  # it is being written or checked; the values are in the store
    KEPT = "kept"  # the file alone has the values
    REMOVING = "removing"  # the values are in the store again, or deleted; the file is to be removed


class ArchivedFile(Base):
    """A Parquet file outside the store that holds, will hold or held archived steps of a segment, one after another."""

    __tablename__ = "archived_files"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[Key]
    run_pk: Mapped[int | None] = mapped_column(ForeignKey("runs.pk", ondelete="SET NULL"), index=True)
    """NULL: the run was deleted."""
    run: Mapped[Str128]
    """The run's id, for messages about a run that was deleted."""
    state: Mapped[Str16] = mapped_column(index=True)
    place: Mapped[LongText]
    """URL of the folder that `name` is relative to."""
    name: Mapped[LongText]
    segment: Mapped[int]
    first_step: Mapped[BigInt]
    last_step: Mapped[BigInt]
    num_steps: Mapped[BigInt]
    num_bytes: Mapped[BigInt]
    sha256: Mapped[Str64]
    changed_at: Mapped[Time]
    complete_at_revision: Mapped[BigInt | None]
    """`Run.revision` at which no other steps of the run were left to archive; NULL in all but its last file."""

    @property
    def described(self) -> str:
        """Its steps in a sentence."""
        return f"steps {self.first_step:,} to {self.last_step:,} of the run {self.run!r}"


def of_run(session: Session, *, run_pk: int) -> Sequence[ArchivedFile]:
    """The files that hold archived steps of the run, by segment and step."""
    found = sa.select(ArchivedFile).where(ArchivedFile.run_pk == run_pk, ArchivedFile.state == FileState.KEPT)
    return session.scalars(found.order_by(ArchivedFile.segment, ArchivedFile.first_step)).all()


OF_A_RUN = sa.and_(ArchivedFile.run_pk.is_not(None), ArchivedFile.state == FileState.KEPT)
"""Condition for the files that hold archived steps of any run."""


def steps_by_run(session: Session) -> Sequence[tuple[str, int]]:
    """(id, number of archived steps) of each run that has some, sorted."""
    counts = sa.select(ArchivedFile.run, sa.func.sum(ArchivedFile.num_steps))
    found = counts.where(OF_A_RUN).group_by(ArchivedFile.run)
    return [(run, int(steps)) for run, steps in session.execute(found.order_by(ArchivedFile.run))]


def runs_with_files(session: Session, *, run_pks: Collection[int]) -> set[int]:
    """Return the runs among these that have archived steps, by `Run.pk`."""
    found: set[int] = set()
    for some in bulk.key_parts(run_pks):
        of_runs = sa.select(ArchivedFile.run_pk).where(ArchivedFile.run_pk.in_(some))
        found.update(session.scalars(of_runs.where(ArchivedFile.state == FileState.KEPT)))
    return found


def left_over(session: Session, *, unfinished: bool) -> Sequence[ArchivedFile]:
    """The files that nothing needs: of deleted runs, and those to be removed.

    `unfinished`: also those that are being written; only for who knows that nobody writes.
    """
    states = [FileState.REMOVING, *([FileState.WRITING] if unfinished else [])]
    deleted = sa.and_(ArchivedFile.run_pk.is_(None), ArchivedFile.state != FileState.WRITING)
    found = sa.select(ArchivedFile).where(sa.or_(ArchivedFile.state.in_(states), deleted))
    return session.scalars(found.order_by(ArchivedFile.id)).all()


def places(session: Session) -> Sequence[str]:
    """The places that keep archived steps, sorted."""
    found = sa.select(ArchivedFile.place).where(ArchivedFile.state == FileState.KEPT).distinct()
    return session.scalars(found.order_by(ArchivedFile.place)).all()
