"""A metric over steps as arrays, how it is stored and read back, and what its column in a table of steps is called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db.steps.buckets import Floats, Ints

Bools = NDArray[np.bool_]

OWN_COLUMNS = ("segment", "step", "time", "live")
"""Columns of a table of steps that are not metrics."""

_RESERVED = re.compile(r"(metric\.)*(segment|step|time|live)")


def column_of(metric: str) -> str:
    """The metric's name, with the prefix `metric.` where a table of steps has a column of this name itself."""
    return f"metric.{metric}" if _RESERVED.fullmatch(metric) else metric


def metric_of(column: str) -> str | None:
    """The inverse of `column_of`; None for a column that is not a metric."""
    if column in OWN_COLUMNS:
        return None
    return column.removeprefix("metric.") if _RESERVED.fullmatch(column) else column


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """A metric over N steps. A value that was not reported is NaN, and so is a reported NaN: `reported` differs."""

    values: Floats
    reported: Bools
    finite: Bools
    plain: bool
    """Every value was reported and is finite."""

    @classmethod
    def of(cls, column: Sequence[float | None]) -> "MetricColumn":
        """A column with None where the metric was not reported."""
        values = np.array(column, dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(values)
        if finite.all():
            return cls(values, finite, finite, True)
        return cls(values, finite | np.array([value is not None for value in column]), finite, False)

    @classmethod
    def of_arrays(cls, values: Floats, reported: Bools) -> "MetricColumn":
        """Build a column of values, NaN where they were not reported, and a mask of the reported ones."""
        finite = np.isfinite(values)
        return cls(values, reported, finite, bool(finite.all()))

    @classmethod
    def unreported(cls, num_steps: int) -> "MetricColumn":
        """A metric that none of the steps reported."""
        return cls.of_arrays(np.full(num_steps, np.nan), np.zeros(num_steps, dtype=np.bool_))

    @classmethod
    def joined(cls, parts: Sequence["MetricColumn"]) -> "MetricColumn":
        """Columns that follow one another, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([np.empty(0), *(part.values for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.bool_), *(part.reported for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.bool_), *(part.finite for part in parts)]),
            all(part.plain for part in parts),
        )

    def at(self, positions: Ints | slice) -> "MetricColumn":
        """The values at these positions."""
        finite = self.finite[positions]
        return MetricColumn(self.values[positions], self.reported[positions], finite, bool(finite.all()))

    def whole(self) -> "MetricColumn":
        """The values as a count is stored: without their fractions."""
        values = np.trunc(self.values) + 0.0  # -0.5 becomes 0, not -0
        return MetricColumn(values, self.reported, self.finite, self.plain)


def perplexity(loss: MetricColumn) -> MetricColumn:
    """exp(loss) where it does not overflow; not reported elsewhere."""
    fits = loss.finite & (loss.values <= 700)
    values = np.exp(np.where(fits, loss.values, 0.0))
    return MetricColumn(values, fits, fits, bool(fits.all()))
