"""A metric over steps in buckets, exactly, at a cost that does not depend on the length of the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import rollups
from db.buckets import Buckets, Floats, coarsen, joined, nothing, points
from db.lineage import Stretch
from db.models import Metric, Rollup, Run, Segment, Step
from db.step_rows import metric_column, non_finite_text
from lossguard.protocol import NON_FINITE

MAX_PARTS = 100
"""Parts of one UNION ALL; SQLite takes at most 500."""


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


def series(
    session: Session,
    *,
    run: Run,
    stretches: Sequence[Stretch],
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
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points}")
    number = session.scalar(sa.select(Metric.number).where(Metric.run_pk == run.pk, Metric.name == metric))
    if number is None:
        return Series()
    ends = _ends(session, run)
    spans = [_span(stretch, ends, first, last) for stretch in stretches]
    width = _width([span for span in spans if span is not None], points)
    parts = list(_parts(stretches, spans, ends, rollups.level_for(width)))
    read = [_from_rollups(session, run, number, parts), _from_steps(session, run, metric, parts)]
    return _as_series(coarsen(joined(read), width))


def _ends(session: Session, run: Run) -> dict[int, tuple[int, int]]:
    """Segment -> its (first, last) step, of those that have steps."""
    found = sa.select(Segment.number, Segment.first_step, Segment.last_step).where(Segment.run_pk == run.pk)
    return {number: (low, high) for number, low, high in session.execute(found) if low is not None and high is not None}


def _span(
    stretch: Stretch, ends: dict[int, tuple[int, int]], first: int | None, last: int | None
) -> tuple[int, int] | None:
    """The steps [low, high) that the stretch can have within the range."""
    if stretch.segment not in ends:
        return None
    begin, end = ends[stretch.segment]
    low = max(stretch.first, begin, begin if first is None else first)
    high = min(end + 1 if stretch.last is None else stretch.last, end + 1, end + 1 if last is None else last + 1)
    return (low, high) if low < high else None


def _width(spans: Sequence[tuple[int, int]], points: int) -> int:
    """The smallest power of two whose buckets are no more than `points`."""
    width, wanted = 1, max(points, len(spans))
    while sum((high - 1) // width - low // width + 1 for low, high in spans) > wanted:
        width *= 2
    return width


def _parts(
    stretches: Sequence[Stretch],
    spans: Sequence[tuple[int, int] | None],
    ends: dict[int, tuple[int, int]],
    level: int,
) -> Iterator[Part]:
    for place, (stretch, span) in enumerate(zip(stretches, spans, strict=True)):
        if span is not None:
            sealed = ends[stretch.segment][1] + 1
            for at_level, low, high in rollups.pieces(level, *span, sealed):
                yield Part(place, stretch.segment, at_level, low, high)


def _from_rollups(session: Session, run: Run, number: int, parts: Sequence[Part]) -> Buckets:
    columns = [getattr(Rollup, name) for name in rollups.KEPT]
    selects = [
        sa.select(sa.literal(part.place), *columns).where(
            *(Rollup.run_pk == run.pk, Rollup.segment == part.segment, Rollup.metric == number),
            *(Rollup.level == part.level, Rollup.start >= part.low, Rollup.start < part.high),
        )
        for part in parts
        if part.level > 0
    ]
    return rollups.from_rows(_all(session, selects))


def _from_steps(session: Session, run: Run, metric: str, parts: Sequence[Part]) -> Buckets:
    value, strange = metric_column(metric), non_finite_text(metric)
    selects = [
        sa.select(sa.literal(part.place), Step.step, value, strange).where(
            Step.run_pk == run.pk, Step.segment == part.segment, Step.step >= part.low, Step.step < part.high
        )
        for part in parts
        if part.level == 0
    ]
    rows = _all(session, selects)
    if not rows:
        return nothing()
    place, step, values, marks = zip(*rows, strict=True)
    column = np.array(values, dtype=np.float64)  # NULL becomes NaN
    reported = ~np.isnan(column)
    for at, mark in enumerate(marks):
        if mark is not None:
            column[at], reported[at] = NON_FINITE[mark], True
    return points(np.array(place)[reported], np.array(step, dtype=np.int64)[reported], column[reported])


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
