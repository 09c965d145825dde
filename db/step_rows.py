"""Step reports as rows and back: where non-finite numbers leave the numeric columns and come back to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db import rollups
from db.buckets import Buckets, Floats, Ints, joined, points
from db.models import Run, Segment, Step
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
    """Insert one wide row per step, and what the roll-ups gain by it. The caller then lets the segment grow.

    `metrics` holds columns as long as `steps`, which rise; None where a metric is absent.
    """
    if not steps:
        return
    columns = {name: _Numbers.of(column) for name, column in metrics.items()}
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = _perplexity(columns["loss"])
    session.execute(sa.insert(Step), _rows(run, segment, steps, times, columns))
    numbers = rollups.metric_numbers(session, run_pk=run.pk, names=columns)
    grown = session.get(Segment, (run.pk, segment))
    before = None if grown is None else grown.last_step
    rollups.grow(
        session,
        rollups.Place(run.pk, segment, numbers),
        _points(np.asarray(steps, dtype=np.int64), columns, numbers),
        before=before,
        after=max(steps[-1], steps[-1] if before is None else before),
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A column of a report: float64[N], where `reported` is not False; `plain` tells that all are there and finite."""

    values: Floats
    reported: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    plain: bool

    @classmethod
    def of(cls, column: Column) -> "_Numbers":
        values = np.array(column, dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(values)
        if finite.all():
            return cls(values, finite, finite, True)
        reported = finite | np.fromiter((value is not None for value in column), dtype=bool, count=len(values))
        return cls(values, reported, finite, False)

    def stored(self, convert: Callable[[float], float]) -> list[float | None]:
        """What the numeric column holds: NULL where the value is absent or not finite."""
        if self.plain:
            return list(map(convert, self.values.tolist()))
        return [convert(value) if fine else None for value, fine in zip(self.values.tolist(), self.finite, strict=True)]


def _perplexity(loss: _Numbers) -> _Numbers:
    """exp(loss), where that is a number that can be stored."""
    fits = loss.finite & (loss.values <= 700)
    values = np.exp(np.where(fits, loss.values, 0.0))
    return _Numbers(values, fits, fits, bool(fits.all()))


def _rows(
    run: Run, segment: int, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, _Numbers]
) -> list[dict[str, Any]]:
    standard = {
        name: columns[name].stored(int if name in WHOLE_NUMBERS else float)
        for name in STANDARD_METRICS
        if name in columns
    }
    names = ["step", "time", *standard]
    same = {"run_pk": run.pk, "segment": segment, "extra": None, "non_finite": None}
    rows = [
        same | dict(zip(names, values, strict=True)) for values in zip(steps, times, *standard.values(), strict=True)
    ]
    for name, column in columns.items():
        if name not in STANDARD_METRICS:
            for at in np.flatnonzero(column.finite).tolist():
                rows[at]["extra"] = (rows[at]["extra"] or {}) | {name: float(column.values[at])}
        if not column.plain:
            for at in np.flatnonzero(column.reported & ~column.finite).tolist():
                mark = {name: encode_number(float(column.values[at]))}
                rows[at]["non_finite"] = (rows[at]["non_finite"] or {}) | mark
    return rows


def _points(steps: Ints, columns: Mapping[str, _Numbers], numbers: Mapping[str, int]) -> Buckets:
    """Every reported value of the report."""
    parts = [
        points(
            np.full(int(column.reported.sum()), numbers[name]), steps[column.reported], column.values[column.reported]
        )
        for name, column in columns.items()
    ]
    return joined(parts)


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
