"""Single steps of many segments at once, and their times: what is stored at, before or after a step, and the newest.

Blocks are found by their key, and only those that can hold the answer are read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.steps import reader
from db.steps.blocks import Block, naming
from db.steps.step_block import Floats, Ints, RunRange
from db.steps.writer import SMALL
from db.store import bulk
from lossguard.vocabulary.metrics import COUNTS

WANTED_PER_QUERY = 2000
"""Rows of VALUES in one statement."""
SELECTS_PER_QUERY = 100
"""SELECTs of a UNION ALL, of which SQLite takes at most 500."""
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


class Span(NamedTuple):
    """Steps [first, last) of a segment."""

    run_pk: int
    segment: int
    first: int
    last: int


Wanted = TypeVar("Wanted", bound=At | Span)


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
    for some, values in _some(wanted, "step"):
        statement = (
            f"{values} SELECT w.position, s.step, s.time FROM wanted w CROSS JOIN steps s"
            f" WHERE {OF_SEGMENT.format('s')} AND s.step = ({which})"
        )
        for position, step, time in bulk.read(session, statement, ()):
            found[some[position]] = StepTime(step, time)
    return found


def _of_blocks(session: Session, wanted: Sequence[At], which: str) -> Iterator[tuple[At, Ints, Floats]]:
    """The steps of the block whose first step `which` selects, and their times, for each that was wanted."""
    for some, values in _some(wanted, "step"):
        found = bulk.read(session, f"{values} SELECT w.position, ({which}) FROM wanted w", ())
        keys = {some[position]: some[position]._replace(step=first) for position, first in found if first is not None}
        blocks = _blocks_at(session, list(dict.fromkeys(keys.values())))
        for at, key in keys.items():
            yield at, *blocks[key]


def _blocks_at(session: Session, keys: Sequence[At]) -> dict[At, tuple[Ints, Floats]]:
    """The steps and times of the blocks with these keys."""
    found = {}
    for some, values in _some(keys, "step"):
        statement = (
            f"{values} SELECT w.position, b.first_step, b.last_step, b.num_steps, b.steps, b.times FROM wanted w"
            f" CROSS JOIN step_blocks b WHERE {OF_SEGMENT.format('b')} AND b.first_step = w.step"
        )
        for rows in bulk.read_chunks(session, statement, ()):
            for position, *columns in rows:
                found[some[position]] = _times_of(session, some[position], Block(*columns))
    return found


def _times_of(session: Session, where: At | Span, block: Block) -> tuple[Ints, Floats]:
    with naming(session, where.run_pk, where.segment, block):
        return block.steps, block.times


def _some(wanted: Sequence[Wanted], *columns: str) -> Iterator[tuple[Sequence[Wanted], str]]:
    """Yield as many of `wanted` as one statement takes, and these as a table of that name, numbered by `position`."""
    for start in range(0, len(wanted), WANTED_PER_QUERY):
        some = wanted[start : start + WANTED_PER_QUERY]
        # `str` of each, because `repr` of numpy's numbers is no SQL
        rows = ", ".join(f"({position},{','.join(map(str, one))})" for position, one in enumerate(some))
        yield some, f"WITH wanted(position, run_pk, segment, {', '.join(columns)}) AS (VALUES {rows})"


@dataclass(frozen=True, slots=True)
class StoredStep:
    """The report of one step."""

    segment: int
    step: int
    time: float
    """Time at which the trainer logged it, in unix seconds."""
    metrics: Mapping[str, float]
    """Metrics that the step reported, not-finite values included; counts are whole numbers."""


def stored_step(session: Session, *, run_pk: int, segment: int, step: int, metrics: Sequence[str]) -> StoredStep:
    """A step that is stored, with these metrics."""
    one = [RunRange(run_pk, StepRange(segment, step, step + 1))]
    (found,) = reader.read_ranges(session, ranges=one, metrics=metrics)
    values = {name: float(column.values[0]) for name, column in found.metrics.items() if column.reported[0]}
    values |= {name: int(value) for name, value in values.items() if name in COUNTS and math.isfinite(value)}
    return StoredStep(segment, step, float(found.times[0]), values)


def newest_times(session: Session, spans: Sequence[Span], *, count: int) -> dict[Span, list[StepTime]]:
    """The last `count` stored steps of each span, in order; spans without any are left out."""
    found: dict[Span, dict[int, float]] = {span: {} for span in spans}
    for span, step in _rows(session, spans, count):
        found[span][step.step] = step.time
    limit, left = 2 + count // SMALL, list(spans)
    while left:
        read, left = _last_blocks(session, left, limit), []
        for span, blocks in read.items():
            num_steps = 0
            for block in blocks:
                steps, times = _times_of(session, span, block)
                inside = (steps >= span.first) & (steps < span.last)
                found[span].update(zip(steps[inside].tolist(), times[inside].tolist(), strict=True))
                num_steps += int(np.count_nonzero(inside))
            if len(blocks) == limit and num_steps < count:  # the blocks before them are needed, too
                left.append(span)
        limit *= 4
    return {
        span: [StepTime(step, times[step]) for step in sorted(times)[-count:]] for span, times in found.items() if times
    }


def _rows(session: Session, spans: Sequence[Span], count: int) -> Iterator[tuple[Span, StepTime]]:
    within = f"{OF_SEGMENT} AND {{0}}.step >= w.low AND {{0}}.step < w.high"
    nth = f"SELECT t.step FROM steps t WHERE {within.format('t')} ORDER BY t.step DESC LIMIT 1 OFFSET {count - 1}"
    for some, values in _some(spans, "low", "high"):
        statement = (
            f"{values} SELECT w.position, s.step, s.time FROM wanted w CROSS JOIN steps s"
            f" WHERE {within.format('s')} AND s.step >= COALESCE(({nth}), w.low)"
        )
        for position, step, time in bulk.read(session, statement, ()):
            yield some[position], StepTime(step, time)


def _last_blocks(session: Session, spans: Sequence[Span], limit: int) -> dict[Span, list[Block]]:
    """The last `limit` blocks that begin before the end of each span."""
    found: dict[Span, list[Block]] = {span: [] for span in spans}
    for start in range(0, len(spans), SELECTS_PER_QUERY):
        some = spans[start : start + SELECTS_PER_QUERY]
        selects = (
            f"SELECT * FROM (SELECT {position} AS position, first_step, last_step, num_steps, steps, times"
            " FROM step_blocks WHERE run_pk = ? AND segment = ? AND first_step < ?"
            f" ORDER BY first_step DESC LIMIT {limit}) AS newest"
            for position in range(len(some))
        )
        values = tuple(value for span in some for value in (span.run_pk, span.segment, span.last))
        for rows in bulk.read_chunks(session, " UNION ALL ".join(selects), values):
            for position, *columns in rows:
                found[some[position]].append(Block(*columns))
    return found
