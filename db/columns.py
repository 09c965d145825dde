"""A metric over the steps of a report, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db.buckets import Floats, Ints

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Numbers:
    """float64[N]; where `reported` is False the value is NaN and means nothing. `plain`: all are there and finite."""

    values: Floats
    reported: Bools
    finite: Bools
    plain: bool

    @classmethod
    def of(cls, column: Sequence[float | None]) -> "Numbers":
        """A column with None where the metric was not reported."""
        values = np.array(column, dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(values)
        if finite.all():
            return cls(values, finite, finite, True)
        return cls(values, finite | np.array([value is not None for value in column]), finite, False)

    def at(self, positions: Ints | slice) -> "Numbers":
        """The values at these positions."""
        finite = self.finite[positions]
        return Numbers(self.values[positions], self.reported[positions], finite, bool(finite.all()))

    def stored(self, convert: Callable[[float], float] | None = None) -> list[float | None]:
        """What a numeric column holds: NULL where the value is absent or not finite."""
        values: list[float] = self.values.tolist()
        if self.plain:
            return list(values if convert is None else map(convert, values))
        fine = self.finite.tolist()
        change = float if convert is None else convert
        return [change(value) if good else None for value, good in zip(values, fine, strict=True)]


def perplexity(loss: Numbers) -> Numbers:
    """exp(loss), where that is a number that can be stored."""
    fits = loss.finite & (loss.values <= 700)
    values = np.exp(np.where(fits, loss.values, 0.0))
    return Numbers(values, fits, fits, bool(fits.all()))
