"""Stored steps as columns: frames, exports, charts, roll-ups and the detection all read them here.

N is the number of steps that are read together. Most steps of a segment are in blocks (`db.steps.blocks`), the newest
and the late ones are rows of `steps`; both are read and put in order here, so that nobody else needs to know.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange, end_of
from db.models import Run
from db.steps import blocks
from db.steps.buckets import FINEST, width
from db.steps.codec import DamagedBlock, decode_rows
from db.steps.step_block import Floats, Ints, MetricColumn, RunRange, StepBlock, joined
from db.store import bulk

MAX_BLOCK_STEPS = 20_000
MAX_RANGES = 100
"""Ranges read by one statement: one SELECT of a UNION ALL each, of which SQLite takes at most 500."""
FROM_STEPS = " FROM steps WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ?"
COUNTED = (
    "SELECT runs.id, metrics.name FROM metrics JOIN runs ON pk = run_pk WHERE run_pk = ? AND metrics.name IN ({names})"
    " AND EXISTS (SELECT 1 FROM rollups WHERE rollups.run_pk = metrics.run_pk AND segment = ? AND metric = number"
    f" AND level = {FINEST} AND start >= ? AND start < ?) ORDER BY number LIMIT 1"
)
"""A metric among names that has a value in a whole bucket of a range."""


@dataclass(frozen=True, slots=True)
class LineSteps:
    """Steps along a line; columns of equal length N. A metric that none of them reported is left out."""

    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]


def read_line(session: Session, *, run: Run, line: Sequence[StepRange], metrics: Sequence[str]) -> LineSteps:
    """Read these metrics along ranges that follow one another, in memory as a whole."""
    blocks = [
        block
        for step_range in line
        for block in read_blocks(session, run_pk=run.pk, step_range=step_range, metrics=metrics)
    ]
    joined = {name: MetricColumn.joined([block.metrics[name] for block in blocks]) for name in metrics}
    return LineSteps(
        steps=np.concatenate([np.empty(0, dtype=np.int64), *(block.steps for block in blocks)]),
        times=np.concatenate([np.empty(0), *(block.times for block in blocks)]),
        metrics={name: column for name, column in joined.items() if column.reported.any()},
    )


def read_blocks(
    session: Session, *, run_pk: int, step_range: StepRange, metrics: Sequence[str], max_steps: int = MAX_BLOCK_STEPS
) -> Iterator[StepBlock]:
    """The steps of a range with these metrics, at most `max_steps` at a time."""
    rest = step_range
    while block := next_block(session, run_pk=run_pk, step_range=rest, metrics=metrics, max_steps=max_steps):
        yield block
        rest = rest.after(int(block.steps[-1]))


def read_intact_blocks(
    session: Session,
    *,
    run_pk: int,
    step_range: StepRange,
    metrics: Sequence[str],
    max_steps: int = MAX_BLOCK_STEPS,
    skipped: Callable[[DamagedBlock], object],
) -> Iterator[StepBlock]:
    """Yield the blocks of a range without those that are damaged; `skipped` is called with each damaged one."""
    part = step_range
    while True:
        block = None
        try:
            block = next_block(session, run_pk=run_pk, step_range=part, metrics=metrics, max_steps=max_steps)
        except DamagedBlock as damaged:
            end = blocks.end_of_block(session, run_pk, part)
            if end < end_of(part):
                part = StepRange(part.segment, part.first, end)  # this one alone
                continue
            skipped(damaged)
        if block is not None:
            yield block
            part = part.after(int(block.steps[-1]))
        elif part.last is None or part.last == step_range.last:
            return
        else:
            part = StepRange(part.segment, part.last, step_range.last)


def next_block(
    session: Session, *, run_pk: int, step_range: StepRange, metrics: Sequence[str], max_steps: int = MAX_BLOCK_STEPS
) -> StepBlock | None:
    """The first `max_steps` steps of a range; None when it has none."""
    packed_end = blocks.end_of_first(session, run_pk, step_range, max_steps)  # rows are few
    some = StepRange(step_range.segment, step_range.first, min(packed_end, end_of(step_range)))
    (found,) = read_ranges(session, ranges=[RunRange(run_pk, some)], metrics=metrics)
    if len(found) > max_steps:
        return found.at(slice(max_steps))
    return found if len(found) else None


def read_ranges(
    session: Session,
    *,
    ranges: Sequence[RunRange],
    metrics: Sequence[str],
    numbers: Mapping[int, Mapping[str, int]] | None = None,
    with_times: bool = True,
) -> list[StepBlock]:
    """The steps of each of these ranges with these metrics, read together: in memory as a whole.

    `numbers`: those of the metrics, by run and name, if the caller has them. Without times these are NaN for steps in
    blocks.
    """
    numbers = numbers or blocks.metric_numbers(session, {one.run_pk for one in ranges}, metrics)
    return [
        block
        for start in range(0, len(ranges), MAX_RANGES)
        for block in _read(session, ranges[start : start + MAX_RANGES], metrics, numbers, with_times=with_times)
    ]


def read_steps(session: Session, *, run_pk: int, step_range: StepRange) -> Ints:
    """The numbers of the steps of a range."""
    values = (run_pk, step_range.segment, step_range.first, end_of(step_range))
    rows = [step for (step,) in bulk.read(session, f"SELECT step{FROM_STEPS}", values)]
    return np.union1d(np.array(rows, dtype=np.int64), blocks.read_steps(session, run_pk, step_range))


def _read(
    session: Session,
    ranges: Sequence[RunRange],
    metrics: Sequence[str],
    numbers: Mapping[int, Mapping[str, int]],
    *,
    with_times: bool,
) -> list[StepBlock]:
    """Rows first: what another process packs in between is found twice then, and not lost."""
    rows = read_rows(session, ranges, metrics, numbers)
    packed = blocks.read_blocks(session, ranges, metrics, numbers, with_times=with_times)
    for one, row, block in zip(ranges, rows, packed, strict=True):
        if not len(row):
            check_nothing_is_lost(session, one, block)
    return [
        joined([part for part in pair if len(part)] or pair[:1], metrics) for pair in zip(rows, packed, strict=True)
    ]


def read_rows(
    session: Session, ranges: Sequence[RunRange], metrics: Sequence[str], numbers: Mapping[int, Mapping[str, int]]
) -> list[StepBlock]:
    """Read the rows of each range together: fewer than `writer.PACK_AT` of a segment. `numbers`: those of the metrics,
    by run and name."""
    statement = " UNION ALL ".join(f'SELECT {at}, step, time, "values"{FROM_STEPS}' for at in range(len(ranges)))
    bounds = tuple(value for run_pk, one in ranges for value in (run_pk, one.segment, one.first, end_of(one)))
    found: list[list[tuple[Any, ...]]] = [[] for _ in ranges]
    for rows in bulk.read_chunks(session, statement, bounds):
        for row in rows:
            found[row[0]].append(row)
    blocks = []
    for (run_pk, one), some in zip(ranges, found, strict=True):
        _, steps, times, stored = zip(*sorted(some), strict=True) if some else ((), (), (), ())  # faster than ORDER BY
        columns = decode_rows(stored, metrics, numbers[run_pk])
        blocks.append(StepBlock(one.segment, np.array(steps, np.int64), np.array(times, np.float64), columns))
    return blocks


def check_nothing_is_lost(session: Session, one: RunRange, block: StepBlock) -> None:
    """Raise DamagedBlock where a whole bucket of the roll-ups has a value of a metric without any in these blocks.

    Somebody dropped a partition, or rows of `block_values`: a block does not say which metrics its steps have, so they
    would read as never reported. Only a metric without any value costs a query.
    """
    absent = [name for name, column in block.metrics.items() if not column.reported.any()]
    if not (absent and len(block)):
        return
    first, last, size = int(block.steps[0]), int(block.steps[-1]), width(FINEST)
    low, high = -(-first // size) * size, (last + 1) // size * size
    if low < high:
        statement = COUNTED.format(names=", ".join("?" * len(absent)))
        for run_id, name in bulk.read(session, statement, (one.run_pk, *absent, one.steps.segment, low, high)):
            raise blocks.missing(run_id, name, one.steps.segment, first, last)
