"""The rate of rare events, and how sure one can be of it."""

import math
from collections.abc import Callable

ERROR = 0.025
"""The probability beyond each end of the interval: 95% lie between them."""
BISECTIONS = 60
NEGLIGIBLE = 1e-17


def poisson_interval(count: int) -> tuple[float, float]:
    """The exact 95% confidence interval of the mean of a Poisson variable that was seen to be `count` (Garwood 1936).

    The lower end is the mean at which so many events, or more, would have a probability of 2.5%; the upper end the one
    at which so many, or fewer, would. Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"a count must not be negative, not {count}")
    far = count + 10 * math.sqrt(count + 1) + 10
    low = 0.0 if count == 0 else _root(lambda mean: 1 - at_most(count - 1, mean) - ERROR, far)
    return low, _root(lambda mean: ERROR - at_most(count, mean), far)


def at_most(count: int, mean: float) -> float:
    """The probability that a Poisson variable of this mean is at most `count`."""
    if mean == 0:
        return 1.0
    term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    probability = term
    for k in range(count, 0, -1):
        term *= k / mean
        probability += term
        if k < mean and term < NEGLIGIBLE * probability:
            break
    return min(probability, 1.0)


def _root(rising: Callable[[float], float], high: float) -> float:
    """Return the root of a rising function between 0 and `high`."""
    low = 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
