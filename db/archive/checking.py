"""Whether the files of archived steps are there, and are the ones that were written."""

import hashlib
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.steps.archived import files, places
from db.steps.archived.files import ArchivedFile
from db.store.engine import reading
from lossguard.vocabulary.wording import plural

FILES_AT_A_TIME = 500


def summary(session: Session) -> str | None:
    """What is archived, in one sentence; None when nothing is."""
    total = files.total(session)
    if not total.num_files:
        return None
    where = ", ".join(files.places(session))
    return (
        f"archived: {plural(total.num_steps, 'step')} of {plural(total.num_runs, 'run')} "
        f"in {plural(total.num_files, 'file')}, {total.num_bytes / 1e6:,.1f} MB, at {where}"
    )


def problems(engine: sa.Engine, *, on_file: Callable[[ArchivedFile], object] = lambda file: None) -> list[str]:
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
            on_file(file)
        after = page[-1].id
    return found


def _page(engine: sa.Engine, after: int) -> list[ArchivedFile]:
    with reading(engine) as session:
        found = list(files.kept(session, after=after, limit=FILES_AT_A_TIME))
        session.expunge_all()
    return found


def _problem(file: ArchivedFile, unusable: set[str]) -> list[str]:
    what = f"the archived steps {file.first_step:,} to {file.last_step:,} of the run {file.run!r}"
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
