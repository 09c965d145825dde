"""The normal range of a run before an incident, beyond which a step is an anomaly. Values in, values out."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.replay.record import RecordedStep

MAX_DEVIATIONS = 6.0
"""A normal step stays within so many standard deviations of the step-to-step noise."""
NEIGHBOURS = 10
"""Steps on either side of a step whose median is the expected value."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The expected values of a signal, and the tolerance around them."""

    steps: Mapping[int, RecordedStep]
    onset: int
    """Steps before it are normal."""
    signal: str
    tolerance: float
    """Tolerance in the unit of the signal."""

    def expected(self, step: int) -> float:
        """The median around the step; after the onset, the median of the last normal steps."""
        middle = min(step, self.onset - 1 - NEIGHBOURS)
        near = finite_values(self.steps, range(middle - NEIGHBOURS, middle + NEIGHBOURS + 1), self.signal)
        return statistics.median(near) if near else self.expected(self.onset)

    def excess(self, step: int, values: RecordedStep) -> float:
        """Return how far a step is above (loss) or away from (others) the expected value; infinite if not finite."""
        if not values.is_finite:
            return math.inf
        difference = values.value(self.signal) - self.expected(step)
        return difference if self.signal == "loss" else abs(difference)

    def is_anomaly(self, step: int, values: RecordedStep) -> bool:
        """Return True if the step is out of tolerance, or one of its metrics is not finite."""
        return not self.excess(step, values) <= self.tolerance

    def worst(self, first: int, steps: Sequence[RecordedStep]) -> tuple[int, float]:
        """(position, excess) of the step with the largest excess; `steps` begin at step `first`."""
        excesses = [self.excess(first + position, values) for position, values in enumerate(steps)]
        position = max(range(len(steps)), key=excesses.__getitem__)
        return position, excesses[position]


def calibrate(
    steps: Mapping[int, RecordedStep], *, first: int, onset: int, signal: str, repeat_error: float
) -> Reference:
    """A reference from the steps [first, onset): from their noise, and from the error when steps are repeated.

    The noise is that of the differences between neighbours, so that a falling loss does not look noisy.
    """
    normal = finite_values(steps, range(first, onset), signal)
    differences = [abs(after - before) for before, after in pairwise(normal)]
    noise = 1.4826 * statistics.median(differences) / math.sqrt(2.0)
    tolerance = max(MAX_DEVIATIONS * noise, 2.0 * repeat_error, 1e-3 * abs(statistics.median(normal)))
    return Reference(steps, onset, signal, tolerance)


def finite_values(steps: Mapping[int, RecordedStep], numbers: Iterable[int], signal: str) -> list[float]:
    """The values of `signal` at those steps that are recorded and finite in all signals."""
    return [steps[step].value(signal) for step in numbers if step in steps and steps[step].is_finite]


def first_divergence(
    recorded: Sequence[RecordedStep], replayed: Sequence[RecordedStep], repeat_error: float
) -> int | None:
    """The first position at which a replay differs from the record by more than normal steps do; None without one."""
    differences = map(loss_difference, recorded, replayed)
    return next((position for position, each in enumerate(differences) if not each <= 2.0 * repeat_error), None)


def loss_difference(one: RecordedStep, other: RecordedStep) -> float:
    """The difference of two losses. If a step is not finite: 0 if neither is, else infinite."""
    if one.is_finite and other.is_finite:
        return abs(one.loss - other.loss)
    return 0.0 if one.is_finite == other.is_finite else math.inf
