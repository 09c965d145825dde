"""The probability that a loss spike lasts: that it does not recover by itself.

A logistic model of how long the excess has lasted, how much of it is gone, and how long the spikes of this run took to
recover. `python -m benchmarks.recovery --fit` fits its weights, and `python -m benchmarks.recovery` scores it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

SMALLEST, LARGEST = 0.01, 0.99
"""No spike of finite values is certain to recover, or to last."""
WEIGHTS = (-0.67, -0.461, -64.9, 32.2, 2.69)
"""Weights of `SpikeShape.features`, as fitted."""
MAX_ROWS = 80
"""Maximum rows of a spike in the fit: a longer one counts as one of this length."""
OFFSET_ROWS, MIDDLE_ROWS = 6, 12
USUAL_ROWS, USUAL_SPIKES = 9, 2
"""Rows and number of spikes that a run is taken to know when it begins."""
SIMILAR_SIZE = 0.5
"""Fraction of the size of a spike below which earlier spikes say nothing about it."""


@dataclass(frozen=True, slots=True)
class SpikeShape:
    """The course of a spike so far, beside the earlier ones of its run."""

    rows: int
    """Rows since the detection."""
    gone: float
    """The fraction of the highest excess that is gone, less one noise, in means of four rows."""
    usual_rows: float
    """Rows in which a spike of this run recovers (see `usual_rows`)."""

    def features(self) -> tuple[float, float, float, float, float]:
        """The factors of the weights."""
        lasted = min(self.rows, MAX_ROWS) + OFFSET_ROWS
        duration, gone = log(lasted / (MIDDLE_ROWS + OFFSET_ROWS)), self.gone * self.gone
        return 1.0, duration, gone, gone * duration, log(lasted / (self.usual_rows + OFFSET_ROWS))

    def lasting_probability(self) -> float:
        """Return the probability that the spike does not recover by itself."""
        log_odds = sum(weight * each for weight, each in zip(WEIGHTS, self.features(), strict=True))
        return min(max(1.0 / (1.0 + exp(-log_odds)), SMALLEST), LARGEST)


def usual_rows(recoveries: Sequence[tuple[int, float]], size: float) -> float:
    """Return the geometric mean of the rows in which spikes of the run, not much smaller than `size`, recovered.

    The state of an earlier release may hold recoveries of less than 0 rows.
    """
    similar = [max(rows, 1 - OFFSET_ROWS) for rows, other in recoveries if other >= SIMILAR_SIZE * size]
    total = USUAL_SPIKES * log(USUAL_ROWS + OFFSET_ROWS) + sum(log(rows + OFFSET_ROWS) for rows in similar)
    return exp(total / (USUAL_SPIKES + len(similar))) - OFFSET_ROWS
