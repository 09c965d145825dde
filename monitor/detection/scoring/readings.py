"""What the signals say at a row, and at the rows just before it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lossguard.states import IncidentKind
from monitor.detection.rows import Floats, Ints
from monitor.detection.scoring.signals import SIGNALS

CALM_DRIFT = 0.6  # of the drift's threshold
CALM_Z = 3.0  # in band
PRECURSOR_Z = 5.0  # a precursor that the onset is dated back to
LOOK_BACK = 16  # rows that an onset may be dated back


@dataclass(frozen=True, slots=True)
class Reading:
    """One signal at one row: see `Scores`."""

    value: float
    z: float
    evidence: float
    single: float
    drift: float
    expected: float
    scale: float
    low_step: int
    broken: bool

    def alarm(self) -> bool:
        return self.broken or self.evidence >= 1.0 or self.drift >= 1.0

    def out(self, kind: IncidentKind) -> bool:
        """Not back in band: the row itself or, in a slow divergence, the level."""
        return self.broken or self.z >= CALM_Z or (kind is IncidentKind.DIVERGENCE and self.drift >= CALM_DRIFT)


@dataclass(frozen=True, slots=True)
class Trail:
    """The last rows, up to and including the present one: steps int64[K]; z and values per signal float64[K]."""

    steps: Ints
    z: Mapping[str, Floats]
    values: Mapping[str, Floats]

    def peak(self, signal: str, since: int, expected: float) -> int:
        """The place of the value farthest from `expected` from a step on, or the last one when that is not finite."""
        values = self.values[signal]
        if not np.isfinite(values[-1]):
            return len(values) - 1
        among = (self.steps >= since) & np.isfinite(values)
        return int(np.argmax(np.where(among, away(signal, values, expected), -np.inf)))


def away(signal: str, values: Floats, expected: float) -> Floats:
    """How far values lie from what was expected, on the side that is trouble; not finite is farther than any."""
    distance = np.abs(values - expected) if SIGNALS[signal].two_sided else values - expected
    return np.where(np.isfinite(values), distance, np.inf)


def describe(signal: str, reading: Reading) -> str:
    return (
        f"{signal} {reading.value:.5g}, expected {reading.expected:.5g} ± {reading.scale:.3g} "
        f"({reading.z:.1f} deviations, {reading.evidence:.3g} times the alarm threshold)"
    )


def foretold(signal: str, trail: Trail) -> bool:
    """Another signal was far out of band in the rows just before: then even a single row is no hard batch."""
    return any((z[-4:-1] >= PRECURSOR_Z).any() for name, z in trail.z.items() if name not in (signal, "loss"))


def onset_step(trail: Trail, signal: str, edge: float = CALM_Z, gaps: int = 1) -> int:
    """The first step of the run of rows out of band that ends at the present row (over gaps of so many rows)."""
    z = trail.z[signal][-LOOK_BACK:]
    steps = trail.steps[-LOOK_BACK:]
    first, gap = len(z) - 1, 0
    for k in range(len(z) - 1, -1, -1):
        if z[k] >= edge:
            first, gap = k, 0
        elif (gap := gap + 1) > gaps:
            break
    return int(steps[first])
