"""The last rows up to a row, by which an incident is dated back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lossguard.metrics import is_advisory
from monitor.detection.rows import Floats, Ints
from monitor.detection.scoring.readings import IN_BAND_Z, PRECURSOR_Z
from monitor.detection.scoring.signals import parameters

MAX_RECENT_ROWS = 16
"""Rows that an onset may be dated back."""


@dataclass(frozen=True, slots=True)
class RecentRows:
    """steps int64[K]; z and values per signal float64[K], nan where a value was not reported."""

    steps: Ints
    z: Mapping[str, Floats]
    values: Mapping[str, Floats]

    @classmethod
    def none(cls, signals: Sequence[str]) -> "RecentRows":
        return cls(
            np.empty(0, dtype=np.int64), dict.fromkeys(signals, np.empty(0)), dict.fromkeys(signals, np.empty(0))
        )

    def __getitem__(self, part: slice) -> "RecentRows":
        z = {name: column[part] for name, column in self.z.items()}
        return RecentRows(self.steps[part], z, {name: column[part] for name, column in self.values.items()})

    def peak_index(self, signal: str, since: int, expected: float, *, down: bool = False) -> int:
        """Of the value farthest from `expected` from a step on, or of the last one when that is not finite."""
        values = self.values[signal]
        if not np.isfinite(values[-1]):
            return len(values) - 1
        among = (self.steps >= since) & np.isfinite(values)
        return int(np.argmax(np.where(among, deviation(signal, values, expected, down=down), -np.inf)))

    def onset_step(self, signal: str, min_z: float = IN_BAND_Z, max_gap: int = 1) -> int:
        """The first step of the rows with `min_z` that end at the last row, over gaps of at most `max_gap` rows."""
        z, steps = self.z[signal][-MAX_RECENT_ROWS:], self.steps[-MAX_RECENT_ROWS:]
        first, gap = len(z) - 1, 0
        for k in range(len(z) - 1, -1, -1):
            if z[k] >= min_z:
                first, gap = k, 0
            elif (gap := gap + 1) > max_gap:
                break
        return int(steps[first])

    def fall_step(self, signal: str, max_z: float) -> int:
        """The first step of the rows with at most this z that end at the last row."""
        above = np.flatnonzero(self.z[signal] > max_z)
        return int(self.steps[min(above[-1] + 1, len(self.steps) - 1) if len(above) else 0])

    def has_precursor(self, signal: str) -> bool:
        """Another signal was far out of band in the rows just before: then even a single row is no hard batch."""
        others = {name: z for name, z in self.z.items() if name not in (signal, "loss") and not is_advisory(name)}
        return any((z[-4:-1] >= PRECURSOR_Z).any() for z in others.values())


def deviation(signal: str, values: Floats, expected: float, *, down: bool = False) -> Floats:
    """How far values lie from `expected`, in the direction of an alarm (`down`: of a fall); infinite for nan or inf."""
    distance = np.abs(values - expected) if parameters(signal).two_sided else values - expected
    distance = -distance if down else distance
    return np.where(np.isfinite(values), distance, np.inf)
