"""Checks that the files of archived steps are there, and hold the same steps to the last bit."""

import hashlib
from collections.abc import Callable

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db.steps.archived import files, places
from db.steps.archived.files import ArchivedFile
from db.steps.step_block import MetricColumn, StepBlock
from db.store.engine import reading
from lossguard.vocabulary.wording import plural

# Blocks


def difference(expected: StepBlock, found: StepBlock) -> str | None:
    """Return the first difference, as the end of a sentence; None without one. NaN payloads and signs of zero count."""
    if len(expected) != len(found):
        return f"{plural(len(found), 'step')} instead of {len(expected):,}"
    if expected.segment != found.segment:
        return f"segment {found.segment} instead of {expected.segment}"
    if not np.array_equal(expected.steps, found.steps):
        return "other steps"
    if not _same_bits(expected.times, found.times):
        return "other times"
    never = MetricColumn.of([None] * len(expected))
    for name in sorted({*expected.metrics, *found.metrics}):
        one, other = expected.metrics.get(name, never), found.metrics.get(name, never)
        if not np.array_equal(one.reported, other.reported):
            return f"the metric {name!r} reported at other steps"
        if not _same_bits(one.values[one.reported], other.values[other.reported]):
            return f"other values of the metric {name!r}"
    return None


def _same_bits(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.array_equal(one.view(np.uint64), other.view(np.uint64))


# Files

FILES_AT_A_TIME = 500


def summary(session: Session) -> str | None:
    """Return one sentence about what is archived; None when nothing is."""
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
