"""Upkeep of the store while collectors write: retention of the ended runs of each project, space, and last rows."""

from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, run_states
from db.models import Retention, Run
from db.records import access
from db.steps import backlog
from db.store import partitions
from db.store.engine import dialect_of, reading, writing
from lossguard.vocabulary.states import RunState
from lossguard.vocabulary.wording import plural

# The days of a project: the caller owns the transaction

SECONDS_PER_DAY = 86_400


def set_days(session: Session, *, project: str, days: float | None, now: float) -> None:
    """Keep the ended runs of the project for the given days; None: for good."""
    row = session.get(Retention, project) or Retention(project=project)
    row.days, row.changed_at = days, now
    session.add(row)
    session.flush()


def unset(session: Session, *, project: str) -> bool:
    """Let the days of `prune` count for the project again: whether it had days of its own."""
    row = session.get(Retention, project)
    if row is not None:
        session.delete(row)
        session.flush()
    return row is not None


def by_project(session: Session) -> dict[str, float | None]:
    """The days of the projects that have their own; None: for good."""
    return {row.project: row.days for row in session.scalars(sa.select(Retention).order_by(Retention.project))}


class OldRun(NamedTuple):
    """A run that is or would be deleted."""

    pk: int
    id: str
    project: str
    state: str


def expired(
    session: Session, *, days: float | None, now: float, among: sa.ColumnElement[bool] | None = None
) -> list[OldRun]:
    """Runs that ended and last reported longer ago than their project keeps them, the oldest first.

    `days` counts for projects without days of their own; None: those keep all. `among`: only runs that meet this.
    """
    kept = sa.case((Retention.project.is_(None), sa.literal(days, sa.Float)), else_=Retention.days)
    is_old = sa.and_(Run.state != RunState.RUNNING, Run.last_report_at < now - kept * SECONDS_PER_DAY)
    found = sa.select(Run.pk, Run.id, Run.project, Run.state).where(is_old)
    found = found.outerjoin(Retention, Retention.project == Run.project).order_by(Run.last_report_at, Run.pk)
    return [OldRun(*row) for row in session.execute(found if among is None else found.where(among))]


# Runs that nobody keeps any longer

WHO = "python -m db prune"
BATCH_RUNS = 5
"""Runs that one transaction deletes where it locks the whole store; else it deletes those of a partition at once."""


def old_runs(engine: sa.Engine, *, days: float | None, now: float) -> list[OldRun]:
    """The runs that `prune` would delete, the oldest first; see `expired`."""
    with reading(engine) as session:
        return expired(session, days=days, now=now)


def prune(engine: sa.Engine, *, days: float | None, now: float) -> Generator[OldRun, None, None]:
    """Delete these runs, some in a transaction, and yield each one when it is gone for good.

    Killed at any moment, each run is either there with all that belongs to it, or gone; the next call goes on.
    """
    old = sorted(old_runs(engine, days=days, now=now), key=lambda run: run.pk)
    for batch in _batches(old, by_partition=dialect_of(engine).has_partitions):
        with writing(engine) as session:
            deleted = _delete(session, batch, days, now)
        yield from deleted


def _batches(runs: Sequence[OldRun], *, by_partition: bool) -> list[Sequence[OldRun]]:
    if by_partition:
        return [list(group) for _, group in groupby(runs, lambda run: partitions.number_of(run.pk))]
    return [runs[at : at + BATCH_RUNS] for at in range(0, len(runs), BATCH_RUNS)]


def _delete(session: Session, batch: Sequence[OldRun], days: float | None, now: float) -> list[OldRun]:
    """Delete those that are there and expired still: others were resumed, reported or are kept longer meanwhile."""
    locked = commands.lock_runs(session, run_ids=[run.id for run in batch])
    found = expired(session, days=days, now=now, among=Run.pk.in_([pk for pk, _ in locked.values()]))
    runs = sorted(found, key=lambda run: run.pk)
    for run in runs:
        access.record(session, who=WHO, action="delete", run=run.id, details={}, now=now)
    commands.delete_runs(session, run_pks=[run.pk for run in runs])
    return runs


# Space


def num_bytes(engine: sa.Engine) -> int:
    """The size of the store, with what is free in it."""
    return dialect_of(engine).num_bytes(engine)


def compact(engine: sa.Engine, *, before: int) -> str:
    """Give back what can be given back without stopping reports: one sentence about it.

    `before`: the bytes of the store before anything was deleted.
    """
    dialect = dialect_of(engine)
    if dialect.has_partitions:
        partitions.compact(engine)
    dialect.vacuum(engine)
    after = num_bytes(engine)
    return f"the store takes {_size(after)}, {_size(max(0, before - after))} less than before"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


# Last rows, which no report packs by the way


def pack_store(engine: sa.Engine, *, now: float) -> Iterator[str]:
    """Pack everything that waits, and say what was done.

    A transaction locks one run for some tenths of a second. Stopped in between, everything is there once.
    """
    before = run_states.stopped_before(now)
    with reading(engine) as session:
        run_ids = backlog.waiting_runs(session, stopped_before=before)
    for run_id in run_ids:
        if num_steps := sum(_pack_run(engine, run_id, before)):
            yield f"packed {plural(num_steps, 'step')} of {run_id}"
    if not run_ids:
        yield "nothing is left to pack"


def _pack_run(engine: sa.Engine, run_id: str, stopped_before: float) -> Iterator[int]:
    """The number of steps that each transaction packed."""
    while True:
        with writing(engine) as session:
            run = commands.lock_run(session, run_id=run_id)
            num_steps = None if run is None else backlog.pack_some(session, run=run, stopped_before=stopped_before)
        if num_steps is None:
            return
        yield num_steps
