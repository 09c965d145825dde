"""A measurement that was repeated: its mean, with a standard error. Pure.

The same numbers as those of trainer/estimate.py, which the dashboard must not import.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from dashboard import formatting

MAX_WITH_DECIMALS = 1e6
MAX_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over independent values, such as those of several seeds."""

    mean: float
    standard_error: float
    """Sample standard deviation / sqrt(number of values); NaN of a single value."""

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        """NaN if there are no values, if one of them is not finite, or if they are too large to be summed."""
        numbers = [float(value) for value in values]
        if not numbers or not all(map(math.isfinite, numbers)):
            return cls(math.nan, math.nan)
        try:
            error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
            return cls(statistics.fmean(numbers), error)
        except OverflowError:
            return cls(math.nan, math.nan)

    def __str__(self) -> str:
        """With two significant digits of the error, as in "1.953 ± 0.012"."""
        if not math.isfinite(self.mean):
            return "not finite"
        if not 0.0 < self.standard_error < math.inf or abs(self.mean) >= MAX_WITH_DECIMALS:
            return formatting.number(self.mean)
        decimals = min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(self.standard_error))))
        return f"{self.mean:.{decimals}f} \N{PLUS-MINUS SIGN} {self.standard_error:.{decimals}f}"
