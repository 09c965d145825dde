"""A metric over steps in buckets, exactly, at a cost that does not depend on the length of the run."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import END, StepRange, end_of
from db.models import Run, Segment
from db.steps import blocks, reader
from db.steps.buckets import (
    NARROWEST,
    STORED,
    Buckets,
    coarsen,
    from_rows,
    joined,
    level_for,
    points_of,
    split_by_level,
)
from db.steps.step_block import RunRange
from db.store import bulk

METRICS_AT_ONCE = 50
"""Metrics read by one statement, which bounds its length and the rows that it returns."""


@dataclass(slots=True)
class Series:
    """A metric over steps in buckets; columns of equal length, in step order.

    With at most one step a bucket, min = max = mean = first = last is the value itself. `non_finite` counts the values
    that were NaN or infinite: no other column includes them (the others are None where there is no finite value).
    """

    first_step: list[int] = field(default_factory=list)
    last_step: list[int] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    last: list[float | None] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    non_finite: list[int] = field(default_factory=list)
    first: list[float | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first_step)


@dataclass(frozen=True, slots=True)
class _LevelRange:
    """Steps [low, high) of a segment that are read from one level; `index` is that of their range on the line."""

    index: int
    segment: int
    level: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class _Keys:
    """The key of a bucket: its metric's number times `num_ranges`, plus the index of its range."""

    numbers: Mapping[str, int]
    """Buckets of the metrics, by name."""
    num_ranges: int

    def of_range(self, index: int) -> dict[str, int]:
        """The keys of the metrics in one of the ranges, by name."""
        return {name: number * self.num_ranges + index for name, number in self.numbers.items()}


def series(
    session: Session,
    *,
    run: Run,
    step_ranges: Sequence[StepRange],
    metric: str,
    first: int | None = None,
    last: int | None = None,
    points: int = 1500,
) -> Series:
    """`metric` over the steps [first, last] of these ranges in at most `points` buckets: exact, no spike is hidden.

    Steps outside [first, last] are in no bucket. The width of the buckets is a power of two and they begin at its
    multiples, so that a growing chart does not jump; a range has at least one bucket. The first and the last value are
    `first[0]` and `last[-1]`. Raises ValueError when `points` is below 1.
    """
    found = many_series(
        session, run=run, step_ranges=step_ranges, metrics=[metric], first=first, last=last, points=points
    )
    return found[metric]


def many_series(
    session: Session,
    *,
    run: Run,
    step_ranges: Sequence[StepRange],
    metrics: Collection[str],
    first: int | None = None,
    last: int | None = None,
    points: int = 1500,
) -> dict[str, Series]:
    """Return series of many metrics by name, read together; a metric that was never reported has an empty one."""
    _, found = buckets_by_range(
        session, run=run, step_ranges=step_ranges, metrics=metrics, first=first, last=last, points=points
    )
    return {metric: _as_series(found[metric]) if metric in found else Series() for metric in metrics}


def buckets_by_range(
    session: Session,
    *,
    run: Run,
    step_ranges: Sequence[StepRange],
    metrics: Collection[str],
    first: int | None = None,
    last: int | None = None,
    points: int = 1500,
) -> tuple[int, dict[str, Buckets]]:
    """(steps in a bucket, the buckets of each metric that was reported); `key` is the position of a bucket's range."""
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points}")
    numbers = blocks.metric_numbers(session, [run.pk], metrics)[run.pk]
    ends = _ends(session, run, {step_range.segment for step_range in step_ranges})
    low, high = first or 0, END if last is None else last + 1
    spans = {
        index: span
        for index, one in enumerate(step_ranges)
        if (wanted := one.within(low, high)) and one.segment in ends and (span := wanted.within(*ends[one.segment]))
    }
    width = _width(spans.values(), points)
    level_ranges = [
        _LevelRange(index, span.segment, *part)
        for index, span in spans.items()
        for part in split_by_level(level_for(width), span.first, end_of(span), ends[span.segment][1])
    ]
    found: dict[str, Buckets] = {}
    for start in range(0, len(numbers), METRICS_AT_ONCE):
        some = dict(list(numbers.items())[start : start + METRICS_AT_ONCE])
        keys = _Keys(some, len(step_ranges))
        buckets = [
            _from_rollups(session, run, keys, level_ranges),
            *_from_steps(session, run, keys, level_ranges, width),
        ]
        read = coarsen(joined(buckets), width)
        number_of = read.key // len(step_ranges)
        for name, number in some.items():
            chosen = read.where(number_of == number)
            found[name] = replace(chosen, key=chosen.key % len(step_ranges))
    return width, found


def _ends(session: Session, run: Run, segments: Collection[int]) -> dict[int, tuple[int, int]]:
    """The first step of each of these segments that has steps, and the one behind its last, by number."""
    of_run = sa.select(Segment.number, Segment.first_step, Segment.last_step).where(Segment.run_pk == run.pk)
    return {
        number: (low, high + 1)
        for some in bulk.key_parts(segments)
        for number, low, high in session.execute(of_run.where(Segment.number.in_(some)))
        if low is not None and high is not None
    }


def _width(spans: Collection[StepRange], points: int) -> int:
    """The smallest power of two that makes no more than `points` buckets."""
    width, limit = 1, max(points, len(spans))
    while sum((end_of(one) - 1) // width - one.first // width + 1 for one in spans) > limit:
        width *= 2
    return width


def _from_rollups(session: Session, run: Run, keys: _Keys, level_ranges: Sequence[_LevelRange]) -> Buckets:
    parts = [one for one in level_ranges if one.level > 0]
    columns, among = ", ".join(STORED), ", ".join(map(str, keys.numbers.values()))
    condition = f"run_pk = ? AND segment = ? AND metric IN ({among}) AND level = ? AND start >= ? AND start < ?"
    rows: list[Any] = []
    for start in range(0, len(parts), reader.MAX_RANGES):
        some = parts[start : start + reader.MAX_RANGES]
        statement = " UNION ALL ".join(
            f"SELECT metric * {keys.num_ranges} + {one.index}, {columns} FROM rollups WHERE {condition}" for one in some
        )
        values = [value for one in some for value in (run.pk, one.segment, one.level, one.low, one.high)]
        for chunk in bulk.read_chunks(session, statement, tuple(values)):
            rows += chunk
    return from_rows(rows)


def _from_steps(
    session: Session, run: Run, keys: _Keys, level_ranges: Sequence[_LevelRange], width: int
) -> Iterator[Buckets]:
    unsealed = [one for one in level_ranges if one.level == 0]
    ranges = [RunRange(run.pk, StepRange(one.segment, one.low, one.high)) for one in unsealed]
    numbers = {run.pk: keys.numbers}
    parts = reader.read_ranges(session, ranges=ranges, metrics=list(keys.numbers), numbers=numbers, with_times=False)
    for one, block in zip(unsealed, parts, strict=True):
        found = points_of(block.steps, block.metrics, keys.of_range(one.index))
        yield coarsen(found, min(width, NARROWEST))  # wider ones would overlap those of the roll-ups


def _as_series(buckets: Buckets) -> Series:
    columns = buckets.to_lists()
    del columns["start"]
    return Series(**columns)
