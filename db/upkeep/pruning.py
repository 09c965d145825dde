"""Delete the runs that nobody keeps any longer, while collectors write."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands
from db.dialects import dialect_of
from db.models import Run
from db.records import access
from db.store import partitions
from db.store.engine import reading, writing
from db.upkeep import retention
from lossguard.vocabulary.states import RunState

WHO = "python -m db prune"
BATCH_RUNS = 5
"""Runs that one transaction deletes where it locks the whole store; else it deletes those of a partition at once."""


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that is or would be deleted."""

    pk: int
    id: str
    project: str
    state: str


def old_runs(engine: sa.Engine, *, days: float | None, now: float) -> list[OldRun]:
    """The runs that `prune` would delete, the oldest first; see `retention.expired`."""
    with reading(engine) as session:
        return [_old(run) for run in retention.expired(session, days=days, now=now)]


def prune(engine: sa.Engine, *, days: float | None, now: float) -> Generator[OldRun, None, None]:
    """Delete these runs, some in a transaction, and yield each one when it is gone for good.

    Killed at any moment, each run is either there with all that belongs to it, or gone; the next call goes on.
    """
    old = sorted(old_runs(engine, days=days, now=now), key=lambda run: run.pk)
    for batch in _batches(old, by_partition=dialect_of(engine).has_partitions):
        with writing(engine) as session:
            deleted = _delete(session, batch, now)
        yield from deleted


def _batches(runs: Sequence[OldRun], *, by_partition: bool) -> list[Sequence[OldRun]]:
    if by_partition:
        return [list(group) for _, group in groupby(runs, lambda run: partitions.number_of(run.pk))]
    return [runs[at : at + BATCH_RUNS] for at in range(0, len(runs), BATCH_RUNS)]


def _delete(session: Session, batch: Sequence[OldRun], now: float) -> list[OldRun]:
    """Delete those that are still there and were not resumed in the meantime."""
    locked = commands.lock_runs(session, run_ids=[run.id for run in batch])
    found = sa.select(Run).where(Run.pk.in_([pk for pk, _ in locked.values()]), Run.state != RunState.RUNNING)
    runs = [_old(run) for run in session.scalars(found.order_by(Run.pk))]
    for run in runs:
        access.record(session, who=WHO, action="delete", run=run.id, details={}, now=now)
    commands.delete_runs(session, run_pks=[run.pk for run in runs])
    return runs


def _old(run: Run) -> OldRun:
    return OldRun(run.pk, run.id, run.project, run.state)
