"""Archived steps of a store: the runs that have steps to archive, what is archived, whether the files are there as they
were written, and the removal of those that nothing needs."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run, Segment, StoredBlock
from db.steps.archived import files, places
from db.steps.archived.files import BUCKET, ArchivedFile, FileState
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from lossguard.vocabulary.wording import plural

AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([dh]?)")
SECONDS = {"": 86_400.0, "d": 86_400.0, "h": 3_600.0}
FILES_AT_A_TIME = 500


def age_seconds(text: str) -> float:
    """Return the seconds of `30d`, `12h`, or a number of days. Raises ValueError."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no age: give days or hours, such as 30d or 12h")
    return float(found[1]) * SECONDS[found[2]]


def candidates(session: Session, *, ended_before: float | None, run_ids: Sequence[str] = ()) -> dict[str, int]:
    """Ended runs that may have steps to archive, the oldest first, with the number of their steps in the store, of
    segments that are long enough; a few of these stay.

    `ended_before`: those that last reported before, in unix seconds; None: whenever. `run_ids`: only these; (): all.
    """
    whole_buckets = Segment.first_step + (BUCKET - Segment.first_step % BUCKET) % BUCKET
    is_long = Segment.last_step - Segment.last_step % BUCKET > whole_buckets
    steps = sa.select(Segment.run_pk, sa.func.sum(Segment.num_steps).label("steps")).where(is_long)
    long_ones = steps.group_by(Segment.run_pk).subquery()
    is_archived = sa.and_(StoredBlock.run_pk == Run.pk, StoredBlock.archived_file.is_not(None))
    archived = sa.select(sa.func.sum(StoredBlock.num_steps)).where(is_archived).correlate(Run).scalar_subquery()
    is_complete = sa.exists().where(ArchivedFile.run_pk == Run.pk, ArchivedFile.complete_at_revision == Run.revision)
    left = long_ones.c.steps - sa.func.coalesce(archived, 0)  # a file may hold steps that were written anew since
    found = (
        sa.select(Run.id, left)
        .join(long_ones, long_ones.c.run_pk == Run.pk)
        .where(Run.state != RunState.RUNNING, ~is_complete, left > 0)
        .order_by(Run.last_report_at)
    )
    if ended_before is not None:
        found = found.where(Run.last_report_at < ended_before)
    if run_ids:
        found = found.where(Run.id.in_(run_ids))
    return {run_id: int(steps) for run_id, steps in session.execute(found)}


def summary(session: Session) -> str | None:
    """Return one sentence about what is archived; None when nothing is."""
    counts = sa.select(
        sa.func.count(ArchivedFile.run_pk.distinct()),
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(ArchivedFile.num_steps), 0),
        sa.func.coalesce(sa.func.sum(ArchivedFile.num_bytes), 0),
    ).where(files.OF_A_RUN)
    num_runs, num_files, num_steps, num_bytes = map(int, session.execute(counts).one())
    if not num_files:
        return None
    where = ", ".join(files.places(session))
    return (
        f"archived: {plural(num_steps, 'step')} of {plural(num_runs, 'run')} "
        f"in {plural(num_files, 'file')}, {num_bytes / 1e6:,.1f} MB, at {where}"
    )


def problems(engine: sa.Engine) -> list[str]:
    """Read every file of archived steps: a sentence for each that is missing, damaged or cannot be read.

    A place that cannot be used is reported once.
    """
    found: list[str] = []
    unusable: set[str] = set()
    after = 0
    while page := _page(engine, after):
        for file in page:
            if file.place not in unusable:
                found += _problem(file, unusable)
        after = page[-1].id
    return found


def _page(engine: sa.Engine, after: int) -> list[ArchivedFile]:
    found = sa.select(ArchivedFile).where(files.OF_A_RUN, ArchivedFile.id > after).order_by(ArchivedFile.id)
    with reading(engine) as session:
        page = list(session.scalars(found.limit(FILES_AT_A_TIME)))
        session.expunge_all()
    return page


def _problem(file: ArchivedFile, unusable: set[str]) -> list[str]:
    what = f"the archived {file.described}"
    try:
        content = places.opened(file.place).read(file.name)
    except places.FileMissing:
        return [f"{what} are missing: there is no file {file.place}/{file.name}; restore it from a backup of the place"]
    except places.PlaceError as error:
        unusable.add(file.place)
        return [str(error)]
    if len(content) != file.num_bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        return [f"{what} are damaged: {file.place}/{file.name} has changed; restore it from a backup of the place"]
    return []


# Files that nothing needs: of deleted runs, of steps that were brought back, of a killed archiving


@dataclass(slots=True)
class Removed:
    num_files: int = 0
    num_left: int = 0
    """Files that could not be removed; they stay listed for the next time."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each place that failed."""


def remove_left_over(
    engine: sa.Engine, *, unfinished: bool = False, may_go_on: Callable[[], bool] = lambda: True
) -> Removed:
    """Remove them. `unfinished`: also files that are being written; only for who has the turn (`archiving.turn_taken`).

    A place that fails is not tried again for its other files; once `may_go_on` is false, the others are left.
    """
    with reading(engine) as session:
        found = files.left_over(session, unfinished=unfinished)
    result, failed = Removed(), set[str]()
    for file in found:
        if file.place in failed or not may_go_on():
            result.num_left += 1
            continue
        if not _claim(engine, file.id):
            continue
        try:
            places.opened(file.place).remove(file.name)
        except places.PlaceError as error:
            failed.add(file.place)
            result.num_left += 1
            result.problems.append(str(error))
            continue
        forget(engine, file.id)
        result.num_files += 1
    return result


def _claim(engine: sa.Engine, file_id: int) -> bool:
    """Mark a file as one to be removed; False if it was kept or forgotten since it was listed."""
    is_left_over = ArchivedFile.state.in_((FileState.WRITING, FileState.REMOVING)) | ArchivedFile.run_pk.is_(None)
    claimed = sa.update(ArchivedFile).where(ArchivedFile.id == file_id, is_left_over).values(state=FileState.REMOVING)
    with writing(engine) as session:
        return session.scalar(claimed.returning(ArchivedFile.id)) is not None


def forget(engine: sa.Engine, file_id: int) -> None:
    """Delete the row of a file that was removed."""
    with writing(engine) as session:
        session.execute(sa.delete(ArchivedFile).where(ArchivedFile.id == file_id))
