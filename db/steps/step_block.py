"""Steps of one segment as columns in memory, and what the column of a metric in a table of steps is called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from db.lineage import StepRange, end_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
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
        values = np.concatenate([np.empty(0), *(part.values for part in parts)])
        return cls.of_arrays(values, np.concatenate([np.empty(0, dtype=np.bool_), *(part.reported for part in parts)]))

    def at(self, positions: Ints | slice) -> "MetricColumn":
        """The values at these positions."""
        return self.of_arrays(self.values[positions], self.reported[positions])

    def whole(self) -> "MetricColumn":
        """The values as a count is stored: without their fractions."""
        return self.of_arrays(np.trunc(self.values) + 0.0, self.reported)  # -0.5 becomes 0, not -0


def perplexity(loss: MetricColumn) -> MetricColumn:
    """exp(loss) where it does not overflow; not reported elsewhere."""
    fits = loss.finite & (loss.values <= 700)
    return MetricColumn.of_arrays(np.exp(np.where(fits, loss.values, np.nan)), fits)


class RunRange(NamedTuple):
    """Steps of a segment of one of several runs."""

    run_pk: int
    steps: StepRange


@dataclass(frozen=True, slots=True)
class Target:
    """A segment whose steps are written, and the numbers of its run's metrics by name."""

    run_pk: int
    segment: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StepBlock:
    """Steps of one segment in their order; every column has the same length N."""

    segment: int
    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)

    def within(self, step_range: StepRange | None) -> Bools:
        """bool[N]: which of the steps are in the range; none without a range."""
        if step_range is None:
            return np.zeros(len(self), dtype=np.bool_)
        return (self.steps >= step_range.first) & (self.steps < end_of(step_range))

    def between(self, first: int, end: int) -> "StepBlock":
        """The steps of [first, end)."""
        low, high = np.searchsorted(self.steps, [first, end]).tolist()
        return self if high - low == len(self) else self.at(slice(low, high))

    def at(self, positions: Ints | slice) -> "StepBlock":
        """The steps at these positions."""
        metrics = {name: column.at(positions) for name, column in self.metrics.items()}
        return StepBlock(self.segment, self.steps[positions], self.times[positions], metrics)


def joined(parts: Sequence[StepBlock], metrics: Sequence[str]) -> StepBlock:
    """Blocks of one segment, at least one, as one in the order of the steps; a step that several hold is taken once.

    A metric that a block lacks was not reported.
    """
    if len(parts) == 1:
        return parts[0]
    steps = np.concatenate([part.steps for part in parts])
    times = np.concatenate([part.times for part in parts])
    nothing = [MetricColumn.unreported(len(part)) for part in parts]
    columns = {
        name: MetricColumn.joined([part.metrics.get(name, never) for part, never in zip(parts, nothing, strict=True)])
        for name in metrics
    }
    together = StepBlock(parts[0].segment, steps, times, columns)
    if (np.diff(steps) > 0).all():
        return together
    return together.at(np.unique(steps, return_index=True)[1])


def merged(parts: Sequence[StepBlock]) -> StepBlock:
    """Join the parts, with every metric that any part has."""
    filled = [part for part in parts if len(part)] or parts[:1]
    return joined(filled, list(dict.fromkeys(name for part in filled for name in part.metrics)))
