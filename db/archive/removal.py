"""Remove files that nothing needs: of deleted runs, of steps that were brought back, of a killed archiving."""

from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from db.steps.archived import files, places
from db.steps.archived.files import ArchivedFile, FileState
from db.store.engine import reading, writing


@dataclass(slots=True)
class Removed:
    """The result of a removal."""

    num_files: int = 0
    num_left: int = 0
    """Files that could not be removed; they stay listed for the next time."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each place that failed."""


def remove_left_over(
    engine: sa.Engine, *, unfinished: bool = False, may_go_on: Callable[[], bool] = lambda: True
) -> Removed:
    """Remove them. `unfinished`: also files that are being written; only for who has the turn (`db.archive.turn`).

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
