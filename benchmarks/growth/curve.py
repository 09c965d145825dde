"""How a cost grows: a power law through the measured costs, and one word for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

FLAT_EXPONENT = 0.1
"""Up to 1.26 times for ten times the size: what repeated measurements on a shared machine differ by."""
LOGARITHMIC_EXPONENT = 0.25
"""Up to 1.78 times for ten times the size."""
LINEAR_EXPONENTS = (0.75, 1.25)


class Growth(StrEnum):
    """How a cost grows with a size, by the exponent of a power law."""

    FLAT = "flat"
    # at most FLAT_EXPONENT
    LOGARITHMIC = "logarithmic"
    # at most LOGARITHMIC_EXPONENT
    BELOW_LINEAR = "below linear"
    LINEAR = "linear"
    # between LINEAR_EXPONENTS
    ABOVE_LINEAR = "above linear"


@dataclass(frozen=True, slots=True)
class Curve:
    """A cost at several sizes."""

    cost: str
    store: str
    """The database that it was measured on."""
    unit: str
    values: Mapping[int, float]
    """By size."""

    @property
    def per_tenfold(self) -> float:
        """By what a size ten times as large multiplies the cost, as fitted over all sizes."""
        return float(10 ** exponent(self.values))

    @property
    def last_tenfold(self) -> float:
        """The same between the two largest sizes."""
        return float(10 ** exponent(dict(sorted(self.values.items())[-2:])))

    @property
    def growth(self) -> Growth:
        """By the larger of the two: a constant cost hides one that grows until that is the larger part."""
        return growth_of(float(np.log10(max(self.per_tenfold, self.last_tenfold))))


def exponent(values: Mapping[int, float]) -> float:
    """That of the power law which fits costs by size best, as least squares of their logarithms.

    A size of 0 has no logarithm and is left out. Raises ValueError with fewer than two other sizes, or a cost of 0.
    """
    points = [(size, cost) for size, cost in values.items() if size > 0]
    if len(points) < 2:
        raise ValueError(f"the growth of a cost needs two sizes above 0; these are {sorted(values)}")
    if any(cost <= 0 for _, cost in points):
        raise ValueError(f"the growth of a cost needs costs above 0; these are {[cost for _, cost in points]}")
    sizes, costs = np.log10(np.array(points)).T
    return float(np.polyfit(sizes, costs, 1)[0])


def growth_of(power: float) -> Growth:
    """The word for a cost that grows with this exponent; one that falls is flat."""
    limits = (FLAT_EXPONENT, LOGARITHMIC_EXPONENT, *LINEAR_EXPONENTS)
    return list(Growth)[int(np.searchsorted(limits, power))]
