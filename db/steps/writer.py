"""Step reports as rows; `db.steps.reader` reads them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import bulk
from db.models import Run, Segment, Step
from db.steps import rollups
from db.steps.columns import MetricColumn, perplexity
from db.steps.reader import metric_value
from lossguard.metrics import COLUMNS, COUNTS
from lossguard.protocol import encode_number

Column = Sequence[float | None]

MAX_ROWS = 10_000
"""Rows that are made at a time: as Python objects they take twenty times the memory of the columns."""


def known_steps(session: Session, *, run: Run, segment: int, steps: Sequence[int]) -> set[int]:
    """Which of these steps the segment holds already."""
    if not steps:
        return set()
    found = sa.select(Step.step).where(
        Step.run_pk == run.pk, Step.segment == segment, Step.step.between(min(steps), max(steps))
    )
    return set(session.scalars(found)) & set(steps)


def insert_steps(
    session: Session,
    *,
    run: Run,
    segment: int,
    steps: Sequence[int],
    times: Sequence[float],
    metrics: Mapping[str, Column | MetricColumn],
    max_metrics: int | None = None,
    numbers: Mapping[str, int] | None = None,
    soon: bool = False,
) -> dict[str, int]:
    """Insert one row for each step, and update the roll-ups. Call `commands.grow_segment` afterwards.

    `steps` rise. `metrics` holds columns of the same length, with None where a metric was not reported. `numbers` are
    those of all of the run's metrics by name, if the caller knows them; returned are these and those of new metrics.
    `soon` inserts the rows together with those of other calls in this transaction, see `bulk.insert_soon`.
    Raises rollups.TooManyMetrics when the run would have more than `max_metrics`.
    """
    if not steps:
        return dict(numbers or {})
    columns = {
        name: given if isinstance(given, MetricColumn) else MetricColumn.of(given) for name, given in metrics.items()
    }
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = perplexity(columns["loss"])
    known = rollups.metric_numbers(session, run_pk=run.pk, names=columns, limit=max_metrics, known=numbers)
    insert = bulk.insert_soon if soon else bulk.insert
    for first in range(0, len(steps), MAX_ROWS):
        part = slice(first, first + MAX_ROWS)
        values = columns if len(steps) <= MAX_ROWS else {name: column.at(part) for name, column in columns.items()}
        insert(session, Step, _table(run, segment, steps[part], times[part], values))
    stored = session.get(Segment, (run.pk, segment))
    before = None if stored is None else stored.last_step
    if rollups.affects_buckets(before, steps[0], steps[-1]):
        target = rollups.Target(run.pk, segment, known)
        new_points = rollups.points_of(np.asarray(steps, dtype=np.int64), columns, known)
        rollups.grow(session, target, new_points, before=before, after=max(steps[-1], before or 0))
    return known


def complete_steps(
    session: Session,
    *,
    run: Run,
    segment: Segment,
    values: Mapping[int, Mapping[str, float]],
    numbers: Mapping[str, int],
) -> dict[str, int]:
    """Add metrics to stored steps, by step and name, and update the roll-ups: the numbers of the run's metrics.

    A value that differs replaces the stored one.
    """
    changed: dict[int, Mapping[str, float]] = {}
    for step, metrics in values.items():
        row = session.get_one(Step, (run.pk, segment.number, step))
        new = {name: value for name, value in metrics.items() if _differs(metric_value(row, name), value)}
        if new:
            _complete(row, new)
            changed[step] = new
    if not changed:
        return dict(numbers)
    session.flush()
    names = sorted({name for metrics in changed.values() for name in metrics})
    names += ["perplexity"] if "loss" in names and "perplexity" not in names else []
    known = rollups.metric_numbers(session, run_pk=run.pk, names=names, known=numbers)
    assert segment.last_step is not None
    steps = np.array(sorted(changed), dtype=np.int64)
    column = MetricColumn.of([0.0] * len(steps))  # only its steps count: the buckets are made from what is stored
    points = rollups.points_of(steps, {names[0]: column}, known)
    target = rollups.Target(run.pk, segment.number, known)
    rollups.grow(session, target, points, before=segment.last_step, after=segment.last_step)
    return known


def _differs(stored: float | None, value: float) -> bool:
    return stored is None or not (stored == value or (stored != stored and value != value))


def _complete(row: Step, metrics: Mapping[str, float]) -> None:
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    if "loss" in metrics and "perplexity" not in metrics:
        loss = metrics["loss"]
        row.perplexity = math.exp(loss) if loss <= 700 and math.isfinite(loss) else None  # type: ignore[attr-defined]
    for name in metrics:
        if name in COLUMNS:
            value = finite.get(name)
            setattr(row, name, int(value) if value is not None and name in COUNTS else value)
    extra = {name: value for name, value in (row.extra or {}).items() if name not in metrics}
    extra |= {name: value for name, value in finite.items() if name not in COLUMNS}
    marks = {name: value for name, value in (row.non_finite or {}).items() if name not in metrics}
    marks |= {name: encode_number(value) for name, value in metrics.items() if name not in finite}
    row.extra, row.non_finite = extra or None, marks or None


def _table(
    run: Run, segment: int, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, MetricColumn]
) -> dict[str, Any]:
    table: dict[str, Any] = {"run_pk": run.pk, "segment": segment, "step": list(steps), "time": list(times)}
    for name in COLUMNS:
        if name in columns:
            table[name] = columns[name].stored(int if name in COUNTS else None)
    extra, non_finite = _json_columns(columns)
    for name, cells in (("extra", extra), ("non_finite", non_finite)):
        if cells:
            table[name] = [json.dumps(cells[at]) if at in cells else None for at in range(len(steps))]
    return table


def _json_columns(columns: Mapping[str, MetricColumn]) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """By position: the metrics without a column of their own, and the values that are not finite."""
    extra: dict[int, dict[str, Any]] = {}
    non_finite: dict[int, dict[str, Any]] = {}
    for name, column in columns.items():
        if name not in COLUMNS:
            for at in np.flatnonzero(column.finite).tolist():
                extra.setdefault(at, {})[name] = float(column.values[at])
        if not column.plain:
            for at in np.flatnonzero(column.reported & ~column.finite).tolist():
                non_finite.setdefault(at, {})[name] = encode_number(float(column.values[at]))
    return extra, non_finite
