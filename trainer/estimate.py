"""A measurement that was repeated: its mean, with a standard error."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsFloat


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over independent values, such as those of several seeds."""

    mean: float
    standard_error: float
    """Sample standard deviation / sqrt(number of values); NaN of a single value."""

    @classmethod
    def of(cls, values: Iterable[SupportsFloat]) -> "Estimate":
        """Of any values, such as a one-dimensional tensor. NaN if there are none, or if one of them is not finite."""
        numbers = [float(value) for value in values]
        if not numbers or not all(map(math.isfinite, numbers)):
            return cls(math.nan, math.nan)
        error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
        return cls(statistics.fmean(numbers), error)

    def __str__(self) -> str:
        """With two significant digits of the error, as in "1.953 +- 0.012"."""
        if not self.standard_error > 0.0:
            return f"{self.mean:.4g}"
        decimals = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{decimals}f} +- {self.standard_error:.{decimals}f}"
