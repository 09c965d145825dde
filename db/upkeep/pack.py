"""Pack what no report packs by the way, run by run: `python -m db pack`.

It also fills in what lists search of runs that an earlier release imported.
"""

from collections.abc import Iterator

import sqlalchemy as sa

from db import commands, run_states
from db.runs import overview
from db.steps import backlog
from db.store import features
from db.store.engine import writing
from lossguard.vocabulary.wording import plural


class NotEnabled(ValueError):
    """The store may have collectors that know no blocks; the message says what to do."""


def pack_store(engine: sa.Engine, *, enable: bool, now: float) -> Iterator[str]:
    """Pack everything that waits, and say what was done. Raises NotEnabled.

    A transaction locks one run for some tenths of a second. Stopped in between, everything is there once.
    """
    before = run_states.stopped_before(now)
    with writing(engine) as session:
        if enable and features.enable(session, features.BLOCKS, now=now):
            yield "steps of new segments are stored in blocks from now on"
        if not features.is_enabled(session, features.BLOCKS):
            raise NotEnabled(
                "this store keeps steps in rows, as collectors of the previous release need them; once every collector "
                "and dashboard runs this release, run: python -m db pack --enable"
            )
        run_ids = backlog.waiting_runs(session, stopped_before=before)
        without_status = overview.missing(session)
    for run_id in run_ids:
        if num_steps := sum(_pack_run(engine, run_id, before)):
            yield f"packed {plural(num_steps, 'step')} of {run_id}"
    for run_id in without_status:
        _fill_in_status(engine, run_id)
        yield f"filled in the newest values of {run_id} for lists and searches"
    if not (run_ids or without_status):
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


def _fill_in_status(engine: sa.Engine, run_id: str) -> None:
    with writing(engine) as session:
        run = commands.lock_run(session, run_id=run_id)
        if run is not None:
            overview.fill_in(session, run=run)
