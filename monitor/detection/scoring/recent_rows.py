"""The last rows up to a row, by which an incident is dated back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from lossguard.vocabulary.metrics import is_advisory
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
        """Return the index of the value farthest from `expected` since a step, or the last one if it is not finite."""
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


class RecentRowsBuffer:
    """The last rows, of which those that came one by one wait in lists until somebody asks for them."""

    def __init__(self, rows: RecentRows) -> None:
        self.rows = rows

    @property
    def rows(self) -> RecentRows:
        """Recent rows, at most MAX_RECENT_ROWS."""
        if self._steps:
            self.rows = self._joined()
        return self._rows

    @rows.setter
    def rows(self, rows: RecentRows) -> None:
        self._rows = rows
        self.last_step: int | None = int(rows.steps[-1]) if len(rows.steps) else None
        self._steps: list[int] = []
        self._z: dict[str, list[float]] = {name: [] for name in rows.z}
        self._values: dict[str, list[float]] = {name: [] for name in rows.values}

    def add(self, step: int, z: Mapping[str, float], values: Mapping[str, float]) -> None:
        """The next row; a signal that it lacks was not reported."""
        self.last_step = step
        self._steps.append(step)
        for name, column in self._z.items():
            column.append(z.get(name, 0.0))
        for name, column in self._values.items():
            column.append(values.get(name, nan))
        if len(self._steps) == 2 * MAX_RECENT_ROWS:
            self.rows = self._joined()

    def _joined(self) -> RecentRows:
        rows = self._rows
        steps = np.concatenate([rows.steps, np.array(self._steps, dtype=np.int64)])
        z = {name: np.concatenate([rows.z[name], column]) for name, column in self._z.items()}
        values = {name: np.concatenate([rows.values[name], column]) for name, column in self._values.items()}
        return RecentRows(steps, z, values)[-MAX_RECENT_ROWS:]


def deviation(signal: str, values: Floats, expected: float, *, down: bool = False) -> Floats:
    """Return distances from `expected` in the direction of an alarm (`down`: of a fall); infinite for nan or inf."""
    distance = np.abs(values - expected) if parameters(signal).two_sided else values - expected
    distance = -distance if down else distance
    return np.where(np.isfinite(values), distance, np.inf)
