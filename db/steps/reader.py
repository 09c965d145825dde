"""Stored steps as columns: frames, exports, charts, roll-ups and the detection all read them here.

N is the number of steps that are read together. Most steps of a segment are in blocks (`db.steps.blocks`), the others
are rows (`db.steps.loose_rows`); both are read and put in order here, so that nobody else needs to know.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run
from db.steps import blocks, loose_rows, lost_values
from db.steps.block_codec import DamagedBlock
from db.steps.buckets import Floats, Ints
from db.steps.columns import MetricColumn
from db.steps.step_block import END as END
from db.steps.step_block import RunRange, end_of, joined
from db.steps.step_block import StepBlock as StepBlock

MAX_BLOCK_STEPS = 20_000
MAX_RANGES = 100
"""Ranges read by one statement: one SELECT of a UNION ALL each, of which SQLite takes at most 500."""


@dataclass(frozen=True, slots=True)
class LineSteps:
    """Steps along a line; columns of equal length N. A metric that none of them reported is left out."""

    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)


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
    low = step_range.first
    while block := next_block(
        session, run_pk=run_pk, step_range=step_range, metrics=metrics, low=low, max_steps=max_steps
    ):
        yield block
        low = int(block.steps[-1]) + 1


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
        try:
            block = next_block(
                session, run_pk=run_pk, step_range=part, metrics=metrics, low=part.first, max_steps=max_steps
            )
        except DamagedBlock as damaged:
            end = blocks.end_of_block(session, run_pk, part)
            if part.last is None or end < part.last:
                part = StepRange(part.segment, part.first, end)  # this one alone
                continue
            skipped(damaged)
            block = None
        if block is not None:
            part = StepRange(part.segment, int(block.steps[-1]) + 1, part.last)
        elif part.last == step_range.last:
            return
        else:
            assert part.last is not None
            part = StepRange(part.segment, part.last, step_range.last)
            continue
        yield block


def next_block(
    session: Session,
    *,
    run_pk: int,
    step_range: StepRange,
    metrics: Sequence[str],
    low: int,
    max_steps: int = MAX_BLOCK_STEPS,
) -> StepBlock | None:
    """The first `max_steps` steps of a range from step `low` on; None when there is none."""
    rest = StepRange(step_range.segment, max(low, step_range.first), end_of(step_range))
    packed_end = blocks.end_of_first(session, run_pk, rest, max_steps)  # rows are few
    some = StepRange(rest.segment, rest.first, min(packed_end, end_of(rest)))
    (found,) = _read(session, [RunRange(run_pk, some)], metrics)
    if len(found) > max_steps:
        return found.at(slice(max_steps))
    return found if len(found) else None


def read_ranges(
    session: Session, *, run_pk: int, ranges: Sequence[StepRange], metrics: Sequence[str]
) -> list[StepBlock]:
    """The steps of each of these ranges with these metrics, read together: in memory as a whole."""
    return _read_some([RunRange(run_pk, one) for one in ranges], lambda some: _read(session, some, metrics))


def read_values(session: Session, *, ranges: Sequence[RunRange], metrics: Sequence[str]) -> list[StepBlock]:
    """Read ranges of several runs without the times, which are NaN for steps in blocks."""
    return _read_some(ranges, lambda some: _read(session, some, metrics, with_times=False))


def _read_some(
    ranges: Sequence[RunRange], read: Callable[[Sequence[RunRange]], Sequence[StepBlock]]
) -> list[StepBlock]:
    """Read as many ranges at a time as one statement takes."""
    return [block for start in range(0, len(ranges), MAX_RANGES) for block in read(ranges[start : start + MAX_RANGES])]


def read_steps(session: Session, *, run_pk: int, step_range: StepRange) -> Ints:
    """The numbers of the steps of a range."""
    rows = loose_rows.read_steps(session, run_pk, step_range)
    return np.union1d(rows, blocks.read_steps(session, run_pk, step_range))


def _read(
    session: Session, ranges: Sequence[RunRange], metrics: Sequence[str], *, with_times: bool = True
) -> list[StepBlock]:
    """Rows first: what another process packs in between is found twice then, and not lost."""
    numbers = blocks.metric_numbers(session, {one.run_pk for one in ranges}, metrics)
    rows = loose_rows.read_rows(session, ranges, metrics, numbers)
    packed = blocks.read_blocks(session, ranges, metrics, numbers, with_times=with_times)
    in_blocks = [(one, found) for one, row, found in zip(ranges, rows, packed, strict=True) if not len(row)]
    lost_values.check(session, in_blocks)
    return [_together(pair, metrics) for pair in zip(rows, packed, strict=True)]


def _together(parts: Sequence[StepBlock], metrics: Sequence[str]) -> StepBlock:
    return joined([part for part in parts if len(part)] or parts[:1], metrics)
