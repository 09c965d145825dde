"""A metric over steps in buckets, exactly, at a cost that does not depend on the length of the run."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Metric, Rollup, Run, Segment, Step
from db.steps import rollups
from db.steps.buckets import Buckets, Floats, coarsen, joined, nothing, points
from db.steps.writer import metric_column
from lossguard.protocol import NON_FINITE

MAX_PARTS = 100
"""Parts of one UNION ALL; SQLite takes at most 500."""
METRICS_AT_ONCE = 50
"""Read by one statement: with MAX_PARTS they stay far below the parameters that a database takes."""


@dataclass(slots=True)
class Series:
    """A metric over steps in buckets; columns of equal length, in step order.

    With at most one step a bucket, min = max = mean = first = last is the value itself. `non_finite` counts the values
    that were NaN or infinite: they are in no other column (the others are None where nothing else was).
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
class Part:
    """Steps [low, high) of a segment, read from one level; `place` orders the stretches of the line."""

    place: int
    segment: int
    level: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class _Places:
    """What is read together: the key of a bucket is its metric's number times `stretches`, plus its stretch's place."""

    numbers: Mapping[str, int]
    """Of the metrics, by name."""
    step_ranges: int


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
    """`metric` over the steps [first, last] of these stretches in at most `points` buckets: exact, no spike is hidden.

    The range is cut before the buckets are made. Their width is a power of two and they lie on its multiples, so that a
    chart that grows does not jump; a stretch has at least one bucket. The first and the last value of the range are
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
    """Each of `metrics` as `series` gives it, read together: by name; one that was never reported is empty."""
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points}")
    known = sa.select(Metric.name, Metric.number).where(Metric.run_pk == run.pk, Metric.name.in_(metrics))
    numbers = {name: number for name, number in session.execute(known)}
    ends = _ends(session, run)
    spans = [_span(step_range, ends, first, last) for step_range in step_ranges]
    width = _width([span for span in spans if span is not None], points)
    parts = list(_parts(step_ranges, spans, ends, rollups.level_for(width)))
    found = {metric: Series() for metric in metrics}
    for start in range(0, len(numbers), METRICS_AT_ONCE):
        some = dict(list(numbers.items())[start : start + METRICS_AT_ONCE])
        places = _Places(some, len(step_ranges))
        read = coarsen(
            joined([_from_rollups(session, run, places, parts), _from_steps(session, run, places, parts)]), width
        )
        metric_of = read.key // len(step_ranges)
        found |= {name: _as_series(read.where(metric_of == number)) for name, number in some.items()}
    return found


def _ends(session: Session, run: Run) -> dict[int, tuple[int, int]]:
    """Segment -> its (first, last) step, of those that have steps."""
    found = sa.select(Segment.number, Segment.first_step, Segment.last_step).where(Segment.run_pk == run.pk)
    return {number: (low, high) for number, low, high in session.execute(found) if low is not None and high is not None}


def _span(
    step_range: StepRange, ends: dict[int, tuple[int, int]], first: int | None, last: int | None
) -> tuple[int, int] | None:
    """The steps [low, high) that the stretch can have within the range."""
    if step_range.segment not in ends:
        return None
    begin, end = ends[step_range.segment]
    low = max(step_range.first, begin, begin if first is None else first)
    high = min(end + 1 if step_range.last is None else step_range.last, end + 1, end + 1 if last is None else last + 1)
    return (low, high) if low < high else None


def _width(spans: Sequence[tuple[int, int]], points: int) -> int:
    """The smallest power of two whose buckets are no more than `points`."""
    width, wanted = 1, max(points, len(spans))
    while sum((high - 1) // width - low // width + 1 for low, high in spans) > wanted:
        width *= 2
    return width


def _parts(
    step_ranges: Sequence[StepRange],
    spans: Sequence[tuple[int, int] | None],
    ends: dict[int, tuple[int, int]],
    level: int,
) -> Iterator[Part]:
    for place, (step_range, span) in enumerate(zip(step_ranges, spans, strict=True)):
        if span is not None:
            sealed = ends[step_range.segment][1] + 1
            for at_level, low, high in rollups.pieces(level, *span, sealed):
                yield Part(place, step_range.segment, at_level, low, high)


def _from_rollups(session: Session, run: Run, places: _Places, parts: Sequence[Part]) -> Buckets:
    columns = [getattr(Rollup, name) for name in rollups.KEPT]
    selects = [
        sa.select(Rollup.metric * places.step_ranges + part.place, *columns).where(
            *(Rollup.run_pk == run.pk, Rollup.segment == part.segment, Rollup.metric.in_(places.numbers.values())),
            *(Rollup.level == part.level, Rollup.start >= part.low, Rollup.start < part.high),
        )
        for part in parts
        if part.level > 0
    ]
    return rollups.from_rows(_all(session, selects))


def _from_steps(session: Session, run: Run, places: _Places, parts: Sequence[Part]) -> Buckets:
    columns = [metric_column(name) for name in places.numbers]
    selects = [
        sa.select(sa.literal(part.place), Step.step, Step.non_finite, *columns).where(
            Step.run_pk == run.pk, Step.segment == part.segment, Step.step >= part.low, Step.step < part.high
        )
        for part in parts
        if part.level == 0
    ]
    rows = _all(session, selects)
    if not rows:
        return nothing()
    place, step, marks, *values = zip(*rows, strict=True)
    marked = [(at, mark) for at, mark in enumerate(marks) if mark]
    at_place, at_step = np.array(place), np.array(step, dtype=np.int64)
    found = []
    for (name, number), column in zip(places.numbers.items(), values, strict=True):
        read = np.array(column, dtype=np.float64)  # NULL becomes NaN
        reported = ~np.isnan(read)
        for at, mark in marked:
            if name in mark:
                read[at], reported[at] = NON_FINITE[mark[name]], True
        key = number * places.step_ranges + at_place[reported]
        found.append(points(key, at_step[reported], read[reported]))
    return joined(found)


def _all(session: Session, selects: Sequence[sa.Select[Any]]) -> list[Any]:
    rows: list[Any] = []
    for start in range(0, len(selects), MAX_PARTS):
        rows += session.execute(sa.union_all(*selects[start : start + MAX_PARTS])).all()
    return rows


def _as_series(buckets: Buckets) -> Series:
    def numbers(column: Floats) -> list[float | None]:
        return [None if value != value else value for value in column.tolist()]

    return Series(
        first_step=buckets.first_step.tolist(),
        last_step=buckets.last_step.tolist(),
        min=numbers(buckets.min),
        max=numbers(buckets.max),
        mean=numbers(buckets.mean),
        last=numbers(buckets.last),
        count=buckets.count.tolist(),
        non_finite=buckets.non_finite.tolist(),
        first=numbers(buckets.first),
    )
