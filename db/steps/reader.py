"""Steps of a run as columns: many steps at full resolution, without an object for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run, Step
from db.steps.buckets import Floats, Ints
from db.steps.columns import MetricColumn
from db.steps.writer import metric_column
from lossguard.protocol import NON_FINITE


@dataclass(frozen=True, slots=True)
class Columns:
    """Of equal length N; `times` in unix seconds. A metric that was never reported in them is left out."""

    steps: Ints
    times: Floats
    metrics: dict[str, MetricColumn]


def columns(session: Session, *, run: Run, line: Sequence[StepRange], metrics: Sequence[str]) -> Columns:
    """These metrics along stretches that follow one another, values that are not finite included."""
    found: list[tuple[Any, ...]] = []
    for step_range in line:
        select = sa.select(Step.step, Step.time, Step.non_finite, *map(metric_column, metrics)).where(
            Step.run_pk == run.pk, Step.segment == step_range.segment, Step.step >= step_range.first
        )
        if step_range.last is not None:
            select = select.where(Step.step < step_range.last)
        found += map(tuple, session.execute(select.order_by(Step.step)))
    empty: list[tuple[Any, ...]] = [()] * (3 + len(metrics))
    steps, times, strange, *values = [*zip(*found, strict=True)] or empty
    marks = [(at, mark) for at, mark in enumerate(strange) if mark]
    read = {name: _numbers(name, column, marks) for name, column in zip(metrics, values, strict=True)}
    kept = {name: column for name, column in read.items() if column.reported.any()}
    return Columns(np.array(steps, dtype=np.int64), np.array(times, dtype=np.float64), kept)


def _numbers(name: str, column: Sequence[float | None], marks: Sequence[tuple[int, dict[str, str]]]) -> MetricColumn:
    """NULL is absent, unless the step is marked with what it was."""
    values = np.array(column, dtype=np.float64)
    reported = ~np.isnan(values)
    for at, mark in marks:
        if name in mark:
            values[at], reported[at] = NON_FINITE[mark[name]], True
    finite = np.isfinite(values)
    return MetricColumn(values, reported, finite, bool(finite.all()))
