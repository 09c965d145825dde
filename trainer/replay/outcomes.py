"""From what the arms of a replay did to the cause that they point to. Values in, values out.

An arm trains one state (a checkpoint) on one list of batches. Four of them cross {the same, an earlier} state with {the
same, other} batches.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lossguard.states import Cause
from trainer.replay.record import Row

SDS = 6.0
"""Standard deviations of the step-to-step noise that a clean step stays within."""
SHARE = 0.25
"""Of the recorded excess: an arm that shows less does not repeat the trouble, even where it is no clean step."""
NEAR = 10
"""Steps on either side of a step whose median is what it was expected to be."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Whether each arm had the trouble; None where the arm could not be run."""

    same_same: bool
    """The same state with the same batches."""
    same_other: bool
    """The same state with other batches."""
    earlier_same: bool | None
    """An earlier state with the same batches."""
    earlier_other: bool | None
    """An earlier state with other batches: the clean reference."""


CAUSES: dict[Outcomes, Cause] = {
    Outcomes(False, False, False, False): Cause.HARDWARE,
    Outcomes(False, False, None, None): Cause.HARDWARE,
    Outcomes(True, False, True, False): Cause.DATA,
    Outcomes(True, True, False, False): Cause.STATE,
    Outcomes(True, False, False, False): Cause.DATA_X_STATE,
}
"""Whatever is not in here contradicts itself (the batches do it, and so does the state, ..) or has no clean arm."""


def cause_of(outcomes: Outcomes) -> Cause:
    return CAUSES.get(outcomes, Cause.UNDETERMINED)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the run's steps were like before the trouble, and how far from that a step is trouble."""

    rows: Mapping[int, Row]
    onset: int
    """Rows before it are clean."""
    signal: str
    tolerance: float
    """In the signal's own unit."""

    def expected(self, step: int) -> float:
        """The median around the step; past the onset, that of the last clean steps."""
        middle = min(step, self.onset - 1 - NEAR)
        near = finite(self.rows, range(middle - NEAR, middle + NEAR + 1), self.signal)
        return statistics.median(near) if near else self.expected(self.onset)

    def excess(self, step: int, row: Row) -> float:
        """How far above it (loss) or from it (the others) a row is; infinite where one of its numbers is not finite."""
        if not row.finite:
            return math.inf
        beyond = row.value(self.signal) - self.expected(step)
        return beyond if self.signal == "loss" else abs(beyond)

    def worst(self, first: int, rows: Sequence[Row]) -> tuple[int, float]:
        """(position, excess) of the row that is furthest off, the rows being those of step `first` and on."""
        excesses = [self.excess(first + place, row) for place, row in enumerate(rows)]
        place = max(range(len(rows)), key=excesses.__getitem__)
        return place, excesses[place]

    def capped(self, recorded: Sequence[float]) -> "Reference":
        """The same where only a good part of these excesses counts as the same trouble."""
        largest = max((each for each in recorded if math.isfinite(each)), default=0.0)
        return Reference(self.rows, self.onset, self.signal, max(self.tolerance, SHARE * largest))


def reference(rows: Mapping[int, Row], *, first: int, onset: int, signal: str, repeat: float) -> Reference:
    """Calibrated on the steps [first, onset): on their noise, and on `repeat`, how far they are off when repeated.

    The noise is that of the differences between neighbours, so that a loss that falls is not taken for a noisy one.
    """
    clean = finite(rows, range(first, onset), signal)
    jumps = [abs(after - before) for before, after in pairwise(clean)]
    noise = 1.4826 * statistics.median(jumps) / math.sqrt(2.0)
    return Reference(rows, onset, signal, max(SDS * noise, 2.0 * repeat, 1e-3 * abs(statistics.median(clean))))


def finite(rows: Mapping[int, Row], steps: Iterable[int], signal: str) -> list[float]:
    """The values of those of these steps that are recorded, and finite in all signals."""
    return [rows[step].value(signal) for step in steps if step in rows and rows[step].finite]


def departure(recorded: Sequence[Row], replayed: Sequence[Row], repeat: float) -> int | None:
    """The first position at which a replay leaves the record by more than clean steps do; None when it never does."""
    for place, (was, now) in enumerate(zip(recorded, replayed, strict=False)):
        if not off(was, now) <= 2.0 * repeat:
            return place
    return None


def off(was: Row, now: Row) -> float:
    """How far apart two losses are; where a row is not finite, 0 if neither is, else infinite."""
    if was.finite and now.finite:
        return abs(was.loss - now.loss)
    return 0.0 if was.finite == now.finite else math.inf
