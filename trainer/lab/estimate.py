"""A measurement over several seeds: its mean, with a standard error."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    standard_error: float | None
    """Sample standard deviation / sqrt(number of seeds); None of a single seed."""

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        """Of at least one value. Not finite if one of the values is not."""
        numbers = list(values)
        if not all(map(math.isfinite, numbers)):
            return cls(math.nan, None)
        error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
        return cls(statistics.fmean(numbers), error)

    def __str__(self) -> str:
        """With two significant digits of the error, as in "1.953 ± 0.012"."""
        if self.standard_error is None or self.standard_error == 0.0:
            return f"{self.mean:.4g}"
        decimals = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.mean:.{decimals}f} ± {self.standard_error:.{decimals}f}"
