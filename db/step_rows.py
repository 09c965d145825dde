"""Step reports as rows and back: where non-finite numbers leave the numeric columns and come back to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run, Step
from lossguard.protocol import NON_FINITE, STANDARD_METRICS, encode_number

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
    metrics: Mapping[str, Column],
) -> None:
    """Insert one wide row per step; `metrics` holds columns as long as `steps`, None where a metric is absent."""
    if not steps:
        return
    columns = {name: metrics[name] for name in STANDARD_METRICS if name in metrics}
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = [_perplexity(loss) for loss in columns["loss"]]
    others = {name: column for name, column in metrics.items() if name not in STANDARD_METRICS}
    strange = _non_finite(metrics, len(steps))
    rows: list[dict[str, Any]] = [
        {"run_pk": run.pk, "segment": segment, "step": step, "time": time, "extra": None, "non_finite": None}
        for step, time in zip(steps, times, strict=True)
    ]
    for name, column in columns.items():
        convert = int if name in WHOLE_NUMBERS else float
        for row, value in zip(rows, column, strict=True):
            row[name] = None if value is None or not math.isfinite(value) else convert(value)
    for name, column in others.items():
        for row, value in zip(rows, column, strict=True):
            if value is not None and math.isfinite(value):
                row["extra"] = (row["extra"] or {}) | {name: value}
    for position, names in strange.items():
        rows[position]["non_finite"] = names
    session.execute(sa.insert(Step), rows)


def _perplexity(loss: float | None) -> float | None:
    return None if loss is None or not math.isfinite(loss) or loss > 700 else math.exp(loss)


def _non_finite(metrics: Mapping[str, Column], num_steps: int) -> dict[int, dict[str, Any]]:
    """Row position -> {metric: "NaN" | "Infinity" | "-Infinity"}, for the rows that have any."""
    strange: dict[int, dict[str, Any]] = {}
    for name, column in metrics.items():
        assert len(column) == num_steps
        for position, value in enumerate(column):
            if value is not None and not math.isfinite(value):
                strange.setdefault(position, {})[name] = encode_number(value)
    return strange


def metric_value(step: Step, name: str) -> float | None:
    """A metric of a stored step as it was reported, non-finite values included; None when it was not."""
    if step.non_finite and name in step.non_finite:
        return NON_FINITE[step.non_finite[name]]
    if name in STANDARD_METRICS:
        value: float | None = getattr(step, name)
        return value
    return (step.extra or {}).get(name)


def metric_column(name: str) -> sa.ColumnElement[Any]:
    """SQL for a metric's finite values, standard or not."""
    if name in STANDARD_METRICS:
        return sa.type_coerce(getattr(Step, name), sa.Float(53))
    value: sa.ColumnElement[Any] = Step.extra[name].as_float()
    return value


def non_finite_text(name: str) -> sa.ColumnElement[str | None]:
    """SQL for "NaN", "Infinity", "-Infinity", or NULL where the metric is finite or absent."""
    text: sa.ColumnElement[str | None] = Step.non_finite[name].as_string()
    return text
