"""Pack what no report packs by the way, run by run: `python -m db pack`."""

from collections.abc import Iterator

import sqlalchemy as sa

from db import commands, run_states
from db.steps import backlog
from db.store.engine import reading, writing
from lossguard.vocabulary.wording import plural


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
