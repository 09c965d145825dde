"""Remove files that nothing needs: of deleted runs, of steps that were brought back, of a killed archiving."""

from dataclasses import dataclass, field

import sqlalchemy as sa

from db.steps.archived import files, places
from db.steps.archived.files import FileState
from db.store.engine import reading, writing


@dataclass(slots=True)
class Removed:
    """What came of it."""

    num_files: int = 0
    num_left: int = 0
    """Files that could not be removed; they stay listed for the next time."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each place that failed."""
    given_up: list[str] = field(default_factory=list)
    """A sentence for each file that was begun at a place that never kept one, and that cannot be used."""


def remove_left_over(engine: sa.Engine, *, unfinished: bool = False) -> Removed:
    """Remove them. `unfinished`: also files that are being written; only for who has the turn (`db.archive.turn`).

    A place that fails is not tried again for its other files. Of an unfinished file the store has all values; it is
    given up where the place cannot be used and never kept one: such a place may never have existed.
    """
    with reading(engine) as session:
        found = files.left_over(session, unfinished=unfinished)
        proven = files.proven_places(session)
    result, failed = Removed(), set[str]()
    for file in found:
        if file.place in failed:
            result.num_left += 1
            continue
        try:
            places.opened(file.place).remove(file.name)
        except places.PlaceError as error:
            if file.state == FileState.WRITING and file.place not in proven:
                forget(engine, file.id)
                result.given_up.append(str(error))
                continue
            failed.add(file.place)
            result.num_left += 1
            result.problems.append(str(error))
            continue
        forget(engine, file.id)
        result.num_files += 1
    return result


def forget(engine: sa.Engine, file_id: int) -> None:
    """Delete the row of a file that was removed."""
    with writing(engine) as session:
        session.execute(sa.delete(files.ArchivedFile).where(files.ArchivedFile.id == file_id))
