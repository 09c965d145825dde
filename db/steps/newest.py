"""The newest steps of segments, from rows and from blocks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.steps import reader
from db.steps.blocks import Block, naming
from db.steps.nearest import OF_SEGMENT, StepTime
from db.steps.packing import SMALL
from db.store import bulk
from lossguard.vocabulary.metrics import COUNTS

SPANS_PER_QUERY = 2000
"""Rows of VALUES in one statement."""
SELECTS_PER_QUERY = 100
"""SELECTs of a UNION ALL, of which SQLite takes at most 500."""


class Span(NamedTuple):
    """Steps [first, last) of a segment."""

    run_pk: int
    segment: int
    first: int
    last: int


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
    one = [StepRange(segment, step, step + 1)]
    (found,) = reader.read_ranges(session, run_pk=run_pk, ranges=one, metrics=metrics)
    values = {name: float(column.values[0]) for name, column in found.metrics.items() if column.reported[0]}
    values |= {name: int(value) for name, value in values.items() if name in COUNTS and math.isfinite(value)}
    return StoredStep(segment, step, float(found.times[0]), values)


def newest_times(session: Session, spans: Sequence[Span], *, count: int) -> dict[Span, list[StepTime]]:
    """The last `count` stored steps of each span, in order; spans without any are left out."""
    found: dict[Span, dict[int, float]] = {span: {} for span in spans}
    for span, step in _rows(session, spans, count):
        found[span][step.step] = step.time
    for span, blocks in _newest_blocks(session, spans, count).items():
        for block in blocks:
            with naming(session, span.run_pk, span.segment, block):
                steps, times = block.steps, block.times
            inside = (steps >= span.first) & (steps < span.last)
            found[span].update(zip(steps[inside].tolist(), times[inside].tolist(), strict=True))
    return {
        span: [StepTime(step, times[step]) for step in sorted(times)[-count:]] for span, times in found.items() if times
    }


def _rows(session: Session, spans: Sequence[Span], count: int) -> Iterator[tuple[Span, StepTime]]:
    within = f"{OF_SEGMENT} AND {{0}}.step >= w.low AND {{0}}.step < w.high"
    nth = f"SELECT t.step FROM steps t WHERE {within.format('t')} ORDER BY t.step DESC LIMIT 1 OFFSET {count - 1}"
    for start in range(0, len(spans), SPANS_PER_QUERY):
        some = spans[start : start + SPANS_PER_QUERY]
        rows = ", ".join(str((position, *span)) for position, span in enumerate(some))
        statement = (
            f"WITH wanted(position, run_pk, segment, low, high) AS (VALUES {rows})"
            " SELECT w.position, s.step, s.time FROM wanted w CROSS JOIN steps s"
            f" WHERE {within.format('s')} AND s.step >= COALESCE(({nth}), w.low)"
        )
        for position, step, time in bulk.read(session, statement, ()):
            yield some[position], StepTime(step, time)


def _newest_blocks(session: Session, spans: Sequence[Span], count: int) -> dict[Span, list[Block]]:
    """The last blocks that begin before the end of each span: those that hold its last `count` steps in blocks."""
    found: dict[Span, list[Block]] = {}
    limit, left = 2 + count // SMALL, list(spans)
    while left:
        read = _last_blocks(session, left, limit)
        found |= read
        full = [span for span, blocks in read.items() if len(blocks) == limit]
        left = [span for span in full if _num_steps(session, span, read[span]) < count]
        limit *= 4
    return found


def _num_steps(session: Session, span: Span, blocks: Sequence[Block]) -> int:
    count = 0
    for block in blocks:
        with naming(session, span.run_pk, span.segment, block):
            count += int(np.count_nonzero((block.steps >= span.first) & (block.steps < span.last)))
    return count


def _last_blocks(session: Session, spans: Sequence[Span], limit: int) -> dict[Span, list[Block]]:
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
