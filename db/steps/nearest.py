"""Single steps of many segments at once, and their times: what is stored at, before or after a step.

Blocks are found by their key, and only those that can hold the answer are read.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.steps.blocks import Block, naming
from db.steps.buckets import Floats, Ints
from db.store import bulk

WANTED_PER_QUERY = 2000
"""Rows of VALUES in one statement."""
OF_SEGMENT = "{0}.run_pk = w.run_pk AND {0}.segment = w.segment"
# The joins are written as CROSS JOIN, of which SQLite keeps the order: from what is wanted to the rows, by their key.


class StepTime(NamedTuple):
    step: int
    time: float
    """Time at which the trainer logged it, in unix seconds."""


class At(NamedTuple):
    """A step of a segment, stored or not."""

    run_pk: int
    segment: int
    step: int


def at_or_before(session: Session, wanted: Sequence[At]) -> dict[At, StepTime]:
    """The newest stored step of the segment at or before each of these, where there is one."""
    of_segment = OF_SEGMENT.format("t")
    found = _rows_of(session, wanted, f"SELECT max(t.step) FROM steps t WHERE {of_segment} AND t.step <= w.step")
    block = f"SELECT max(t.first_step) FROM step_blocks t WHERE {of_segment} AND t.first_step <= w.step"
    for at, steps, times in _of_blocks(session, wanted, block):
        position = int(np.searchsorted(steps, at.step, side="right")) - 1
        step = StepTime(int(steps[position]), float(times[position]))
        found[at] = max(step, found.get(at, step))
    return found


def after(session: Session, wanted: Sequence[At]) -> dict[At, StepTime]:
    """The first stored step of the segment after each of these, where there is one."""
    of_segment = OF_SEGMENT.format("t")
    next_row = f"SELECT min(t.step) FROM steps t WHERE {of_segment} AND t.step > w.step"
    # The last step of a block rises with its first one, but only the first is in the key.
    holding = f"SELECT max(t.first_step) FROM step_blocks t WHERE {of_segment} AND t.first_step <= w.step"
    following = f"SELECT min(t.first_step) FROM step_blocks t WHERE {of_segment} AND t.first_step > w.step"
    found = _rows_of(session, wanted, next_row)
    for block in (holding, following):
        for at, steps, times in _of_blocks(session, wanted, block):
            position = int(np.searchsorted(steps, at.step, side="right"))
            if position < len(steps):
                step = StepTime(int(steps[position]), float(times[position]))
                found[at] = min(step, found.get(at, step))
    return found


def times_of(session: Session, wanted: Sequence[At]) -> dict[At, float]:
    """Return the times at which these steps were logged, in unix seconds; of those that are stored."""
    return {at: step.time for at, step in at_or_before(session, wanted).items() if step.step == at.step}


def _rows_of(session: Session, wanted: Sequence[At], which: str) -> dict[At, StepTime]:
    """The rows whose step `which` selects, by what was wanted."""
    found = {}
    for some in _some(wanted):
        statement = (
            f"{_with(some)} SELECT w.position, s.step, s.time FROM wanted w CROSS JOIN steps s"
            f" WHERE {OF_SEGMENT.format('s')} AND s.step = ({which})"
        )
        for position, step, time in bulk.read(session, statement, ()):
            found[some[position]] = StepTime(step, time)
    return found


def _of_blocks(session: Session, wanted: Sequence[At], which: str) -> Iterator[tuple[At, Ints, Floats]]:
    """The steps of the block whose first step `which` selects, and their times, for each that was wanted."""
    for some in _some(wanted):
        found = bulk.read(session, f"{_with(some)} SELECT w.position, ({which}) FROM wanted w", ())
        keys = {some[position]: some[position]._replace(step=first) for position, first in found if first is not None}
        blocks = dict(_blocks_at(session, list(dict.fromkeys(keys.values()))))
        for at, key in keys.items():
            yield at, *blocks[key]


def _blocks_at(session: Session, keys: Sequence[At]) -> Iterator[tuple[At, tuple[Ints, Floats]]]:
    """(its key, (steps, times)) of the blocks with these keys."""
    statement = (
        f"{_with(keys)} SELECT w.position, b.first_step, b.last_step, b.num_steps, b.steps, b.times FROM wanted w"
        f" CROSS JOIN step_blocks b WHERE {OF_SEGMENT.format('b')} AND b.first_step = w.step"
    )
    for rows in bulk.read_chunks(session, statement, ()) if keys else ():
        for position, *columns in rows:
            block, key = Block(*columns), keys[position]
            with naming(session, key.run_pk, key.segment, block):
                found = block.steps, block.times
            yield key, found


def _some(wanted: Sequence[At]) -> Iterator[Sequence[At]]:
    for start in range(0, len(wanted), WANTED_PER_QUERY):
        yield wanted[start : start + WANTED_PER_QUERY]


def _with(wanted: Sequence[At]) -> str:
    rows = ", ".join(f"({position},{run},{segment},{step})" for position, (run, segment, step) in enumerate(wanted))
    return f"WITH wanted(position, run_pk, segment, step) AS (VALUES {rows})"
