"""A metric over the steps of a report, as arrays; and what its column is called where steps are a table."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db.steps.buckets import Floats, Ints

Bools = NDArray[np.bool_]

OWN_COLUMNS = ("segment", "step", "time", "live")
"""What a table of steps holds beside the metrics."""

_TAKEN = re.compile(r"(metric\.)*(segment|step|time|live)")


def column_of(metric: str) -> str:
    """The metric's name, with `metric.` before it where a table of steps has such a column itself."""
    return f"metric.{metric}" if _TAKEN.fullmatch(metric) else metric


def metric_of(column: str) -> str | None:
    """Undo `column_of`; None for a column that is no metric."""
    if column in OWN_COLUMNS:
        return None
    return column.removeprefix("metric.") if _TAKEN.fullmatch(column) else column


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """float64[N]; where `reported` is False the value is NaN and means nothing. `plain`: all are there and finite."""

    values: Floats
    reported: Bools
    finite: Bools
    plain: bool

    @classmethod
    def of(cls, column: Sequence[float | None]) -> "MetricColumn":
        """A column with None where the metric was not reported."""
        values = np.array(column, dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(values)
        if finite.all():
            return cls(values, finite, finite, True)
        return cls(values, finite | np.array([value is not None for value in column]), finite, False)

    def at(self, positions: Ints | slice) -> "MetricColumn":
        """The values at these positions."""
        finite = self.finite[positions]
        return MetricColumn(self.values[positions], self.reported[positions], finite, bool(finite.all()))

    def stored(self, convert: Callable[[float], float] | None = None) -> list[float | None]:
        """What a numeric column holds: NULL where the value is absent or not finite."""
        values: list[float] = self.values.tolist()
        if self.plain:
            return list(values if convert is None else map(convert, values))
        fine = self.finite.tolist()
        change = float if convert is None else convert
        return [change(value) if good else None for value, good in zip(values, fine, strict=True)]


def perplexity(loss: MetricColumn) -> MetricColumn:
    """exp(loss), where that is a number that can be stored."""
    fits = loss.finite & (loss.values <= 700)
    values = np.exp(np.where(fits, loss.values, 0.0))
    return MetricColumn(values, fits, fits, bool(fits.all()))
