"""Step reports as rows and back: where non-finite numbers leave the numeric columns and come back to them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import bulk
from db.models import Run, Segment, Step
from db.steps import rollups
from db.steps.buckets import Buckets, Ints, nothing, points
from db.steps.columns import MetricColumn, perplexity
from lossguard.metrics import COLUMNS
from lossguard.protocol import NON_FINITE, encode_number

WHOLE_NUMBERS = ("tokens", "batch_index")

Column = Sequence[float | None]


def known_steps(session: Session, *, run: Run, segment: int, steps: Sequence[int]) -> set[int]:
    """Which of these steps the segment has already."""
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
    """Insert one wide row per step, and what the roll-ups gain by it. The caller then lets the segment grow.

    `metrics` holds columns as long as `steps`, which rise; None where a metric is absent. `numbers` are those of the
    run's metrics where they are known already; returns them with those of new metrics. `soon`: with the rows of other
    calls in this transaction, see `bulk.insert_soon`.
    Raises rollups.TooManyMetrics when the run would have more than `max_metrics`.
    """
    if not steps:
        return dict(numbers or {})
    columns = {name: one if isinstance(one, MetricColumn) else MetricColumn.of(one) for name, one in metrics.items()}
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = perplexity(columns["loss"])
    known = rollups.metric_numbers(session, run_pk=run.pk, names=columns, limit=max_metrics, known=numbers)
    insert = bulk.insert_soon if soon else bulk.insert
    insert(session, Step, _table(run, segment, steps, times, columns))
    grown = session.get(Segment, (run.pk, segment))
    before = None if grown is None else grown.last_step
    if rollups.touches(before, steps[0], steps[-1]):
        place = rollups.Place(run.pk, segment, known)
        given = _points(np.asarray(steps, dtype=np.int64), columns, known)
        rollups.grow(session, place, given, before=before, after=max(steps[-1], before or 0))
    return known


def _table(
    run: Run, segment: int, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, MetricColumn]
) -> dict[str, Any]:
    table: dict[str, Any] = {"run_pk": run.pk, "segment": segment, "step": list(steps), "time": list(times)}
    for name in COLUMNS:
        if name in columns:
            table[name] = columns[name].stored(int if name in WHOLE_NUMBERS else None)
    extra, strange = _json_columns(columns)
    for name, cells in (("extra", extra), ("non_finite", strange)):
        if cells:
            table[name] = [json.dumps(cells[at]) if at in cells else None for at in range(len(steps))]
    return table


def _json_columns(columns: Mapping[str, MetricColumn]) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """By position: the metrics without a column of their own, and the values that are not finite."""
    extra: dict[int, dict[str, Any]] = {}
    strange: dict[int, dict[str, Any]] = {}
    for name, column in columns.items():
        if name not in COLUMNS:
            for at in np.flatnonzero(column.finite).tolist():
                extra.setdefault(at, {})[name] = float(column.values[at])
        if not column.plain:
            for at in np.flatnonzero(column.reported & ~column.finite).tolist():
                strange.setdefault(at, {})[name] = encode_number(float(column.values[at]))
    return extra, strange


def _points(steps: Ints, columns: Mapping[str, MetricColumn], numbers: Mapping[str, int]) -> Buckets:
    """Every reported value of the report, metric by metric."""
    if not columns:
        return nothing()
    chosen = sorted(columns.items(), key=lambda pair: numbers[pair[0]])
    reported = np.concatenate([column.reported for _, column in chosen])
    key = np.repeat([numbers[name] for name, _ in chosen], len(steps))
    values = np.concatenate([column.values for _, column in chosen])
    return points(key[reported], np.tile(steps, len(chosen))[reported], values[reported])


def metric_value(step: Step, name: str) -> float | None:
    """A metric of a stored step as it was reported, non-finite values included; None when it was not."""
    if step.non_finite and name in step.non_finite:
        return NON_FINITE[step.non_finite[name]]
    if name in COLUMNS:
        value: float | None = getattr(step, name)
        return value
    return (step.extra or {}).get(name)


def metric_column(name: str) -> sa.ColumnElement[Any]:
    """SQL for a metric's finite values, standard or not."""
    if name in COLUMNS:
        return sa.type_coerce(getattr(Step, name), sa.Float(53))
    value: sa.ColumnElement[Any] = Step.extra[name].as_float()
    return value
