"""Rows with the scores that the detectors gave them, and the rows before them, by which an incident is dated back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, NamedTuple

import numpy as np

from lossguard.vocabulary.metrics import is_advisory
from lossguard.vocabulary.states import IncidentKind
from lossguard.vocabulary.wording import apart
from monitor.detection.rows import Bools, Floats, Ints, Row, Rows
from monitor.detection.scoring.baseline import FALL_Z
from monitor.detection.scoring.corrections import Skips
from monitor.detection.scoring.signals import parameters

IN_BAND_Z = 3.0
IN_BAND_DRIFT = 0.6  # of the drift's threshold
FAR_Z = 20.0  # standard deviations; how many more of them says nothing to a person
PRECURSOR_Z = 5.0  # of a row that an onset is dated back to


class SignalReading(NamedTuple):
    """One signal at one row: its value, and its row of `Scores`."""

    value: float
    z: float
    evidence: float
    single: float
    drift: float
    expected: float
    scale: float
    low_step: int
    rise_step: int
    reference: float
    fall: float
    sure: float
    non_finite: bool

    def is_notable(self, *, is_advisory: bool) -> bool:
        """True if the row needs a closer look, whatever the state of incidents: see `ScoredRows.alarms`."""
        if self.non_finite or self.evidence >= 1.0:
            return True
        return not is_advisory and (self.single >= 1.0 or self.drift >= 1.0 or self.fall >= 1.0)

    def is_alarm(self) -> bool:
        return self.non_finite or max(self.evidence, self.drift, self.fall) >= 1.0

    def is_sure(self) -> bool:
        """True if the reading is enough for an action: a spike of the loss needs more than for an incident."""
        return self.non_finite or max(self.sure, self.drift) >= 1.0

    def is_warning(self) -> bool:
        """True if an alarm of an advisory signal has a row that stands out itself: sums of earlier rows linger."""
        return self.non_finite or (self.evidence >= 1.0 and self.z >= PRECURSOR_Z)

    def is_out_of_band(self, kind: IncidentKind) -> bool:
        """The row itself is out of band or, in a slow divergence, the level."""
        drifted = kind is IncidentKind.DIVERGENCE and self.drift >= IN_BAND_DRIFT
        fallen = kind is IncidentKind.LOSS_COLLAPSE and self.z <= -FALL_Z
        return self.non_finite or self.z >= IN_BAND_Z or drifted or fallen


class Scores(NamedTuple):
    """Columns over N rows; a row without an observation has z = evidence = single = drift = 0.

    `z`: residual in robust standard deviations, positive in the direction of an alarm; `evidence`, `single` (of the row
    alone), `drift` and `fall` (sudden): 1.0 is the alarm threshold; `expected` and `scale` in the signal's own unit, of
    non-finite rows too, nan where nothing is known; `low_step`: when the level was lowest; `rise_step`, `reference`:
    when the present slow rise began, and the level before it or else the usual level; `sure`: the evidence of an alarm
    in thresholds of an action; `non_finite`: reported, and nan, infinite or at least HUGE.
    """

    z: Floats
    evidence: Floats
    single: Floats
    drift: Floats
    expected: Floats
    scale: Floats
    low_step: Ints
    rise_step: Ints
    reference: Floats
    fall: Floats
    sure: Floats
    non_finite: Bools

    def reading(self, k: int, value: float) -> SignalReading:
        """Row k, whose value is `value`."""
        scores: list[Any] = [column.item(k) for column in self]
        return SignalReading(value, *scores)


def describe(signal: str, reading: SignalReading) -> str:
    """A clause such as "loss is 3.2, expected 2.2 +- 0.2 (5 standard deviations, 1.2 times the alarm threshold)"."""
    value, expected = apart(reading.value, reading.expected)
    far = f"{reading.z:.3g} standard deviations, {reading.evidence:.3g} times the alarm threshold"
    where = "far outside the band" if abs(reading.z) >= FAR_Z else far
    return f"{signal} is {value}, expected {expected} \u00b1 {reading.scale:.3g} ({where})"


def score_of(kind: IncidentKind, reading: SignalReading) -> float:
    """The evidence for an incident of this kind, in alarm thresholds."""
    if kind is IncidentKind.DIVERGENCE:
        return max(reading.drift, reading.evidence)
    return reading.fall if kind is IncidentKind.LOSS_COLLAPSE else reading.evidence


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


@dataclass(slots=True)
class ScoredRow:
    """One row with its readings, signal by signal: `ScoredRows` of length 1."""

    row: Row
    readings: Mapping[str, SignalReading]
    is_alarm: bool
    """True if it needs a closer look, whatever the state of incidents."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """`context`: the rows themselves after the `num_before` rows that came before them."""

    rows: Rows
    scores: Mapping[str, Scores]
    context: RecentRows
    num_before: int
    skips: Skips = field(default_factory=Skips)

    def is_withheld(self, k: int) -> bool:
        """True if no detector has seen row k, because its update was skipped."""
        return self.skips.withheld is not None and bool(self.skips.withheld[k])

    def alarms(self) -> Bools:
        """Rows that need a closer look, whatever the state of incidents."""
        alarm = np.zeros(len(self.rows), dtype=bool)
        for name, score in self.scores.items():
            alarm |= score.non_finite | (score.evidence >= 1.0)
            if not is_advisory(name):
                alarm |= (score.single >= 1.0) | (score.drift >= 1.0) | (score.fall >= 1.0)
        alarm[list(self.skips.caps)] = True
        return alarm

    def readings(self, k: int) -> dict[str, SignalReading]:
        """Row k, signal by signal; a signal that was not reported is left out."""
        return {
            name: score.reading(k, self.rows.metrics[name].item(k))
            for name, score in self.scores.items()
            if self.rows.present[name][k]
        }

    def recent(self, k: int) -> RecentRows:
        """The rows up to row k."""
        end = self.num_before + k + 1
        return self.context[max(end - MAX_RECENT_ROWS, 0) : end]
