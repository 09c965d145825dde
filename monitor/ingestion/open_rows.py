"""Scalars that come one by one, joined into rows: the detection and the store take a step as a whole.

A row stays open until all signals that are due at its step are there: which are due follows from the steps at which
each of them came before. What is missing is waited for, and rows that an asynchronous client sends out of order are
put in order meanwhile. Pure: times are arguments.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Self

from lossguard.vocabulary.metrics import DETECTOR_INPUTS, SIGNALS
from lossguard.vocabulary.protocol import encode_number

HOLD_SECONDS = 2.0
"""Wait so long for what may still come of a row that has its signals, or for rows before it."""
SIGNAL_HOLD_SECONDS = 600.0
"""Wait so long for a signal that is due, such as the loss of a slow step whose learning rate came first."""
MAX_OPEN_ROWS = 64
"""Maximum number of open rows; of more, the first ones are complete as they are."""


class Scalar(NamedTuple):
    """One value of a metric, under the name that it is recorded under."""

    name: str
    value: float
    time: float
    """Time of logging by the trainer's clock, in unix seconds."""
    step: int


class ScalarPlace(StrEnum):
    """The step to which a scalar belongs."""

    OPEN = "open"  # to an open row
    LATE = "late"  # to a step that is stored already, or before one that is
    BACK = "back"  # to a new segment: the loop went back


@dataclass(slots=True)
class OpenRow:
    """The scalars of a step that have come so far."""

    step: int
    time: float
    """Time of its first scalar, by the trainer's clock."""
    arrived: float
    """Arrival of its first scalar, by the collector's clock."""
    values: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class OpenRows:
    """The open rows of the newest segment of a run, and what tells when they are complete."""

    rows: dict[int, OpenRow] = field(default_factory=dict)
    last_complete: int | None = None
    """Last step of the segment that is complete."""
    newest_time: float = -1.0
    """Time of the newest scalar."""
    reached: dict[str, int] = field(default_factory=dict)
    """Inputs of the detection -> the highest step of each in the segment."""
    cadence: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Inputs of the detection -> last complete step with the input, and steps between the last two of these."""

    def place(self, scalar: Scalar) -> ScalarPlace:
        """Return the place of the scalar.

        A loop has gone back when an input of the detection was logged later than all others for an earlier step. Other
        metrics may be logged for any step: a test result often is for step 0.
        """
        if scalar.step < self.reached.get(scalar.name, 0) and scalar.time > self.newest_time:
            return ScalarPlace.BACK
        is_open = scalar.step in self.rows or self.last_complete is None or scalar.step > self.last_complete
        return ScalarPlace.OPEN if is_open else ScalarPlace.LATE

    def add(self, scalar: Scalar, now: float) -> None:
        """Take in a scalar that belongs to an open row. The last value of a metric at a step counts."""
        row = self.rows.setdefault(scalar.step, OpenRow(scalar.step, scalar.time, now))
        row.values[scalar.name] = scalar.value
        self.note(scalar)

    def note(self, scalar: Scalar) -> None:
        """The segment has this scalar."""
        self.newest_time = max(self.newest_time, scalar.time)
        if scalar.name in DETECTOR_INPUTS:
            self.reached[scalar.name] = max(scalar.step, self.reached.get(scalar.name, 0))

    def take_complete(self, now: float) -> list[OpenRow]:
        """Remove and return the rows that are complete, in the order of their steps, and those before them."""
        steps = sorted(self.rows)
        waited = [at for at, step in enumerate(steps, start=1) if now >= self._due_at(self.rows[step])]
        count = max([*waited, len(steps) - MAX_OPEN_ROWS, 0])
        complete = self._take(steps[:count])
        for step in steps[count:]:
            if not self._is_expected(self.rows[step]):
                break
            complete += self._take([step])
        return complete

    def take_all(self) -> list[OpenRow]:
        """Complete all open rows: nothing more comes for them."""
        return self._take(sorted(self.rows))

    def due_at(self) -> float | None:
        """Return the time at which the next row is complete by waiting; None without open rows."""
        return min(map(self._due_at, self.rows.values()), default=None)

    def begin_segment(self) -> None:
        """A new segment begins; what is due at which step is kept apart from where the last segment ended."""
        assert not self.rows
        self.last_complete = None
        self.reached.clear()
        self.cadence.clear()

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: strict JSON."""
        return {
            "rows": [
                [row.step, row.time, row.arrived, {name: encode_number(value) for name, value in row.values.items()}]
                for row in self.rows.values()
            ],
            "last_complete": self.last_complete,
            "newest_time": self.newest_time,
            "reached": self.reached,
            "cadence": self.cadence,
        }

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Undo `to_json`."""
        rows = {
            step: OpenRow(step, time, arrived, {name: float(value) for name, value in values.items()})
            for step, time, arrived, values in stored["rows"]
        }
        cadence = {name: (last, stride) for name, (last, stride) in stored["cadence"].items()}
        return cls(rows, stored["last_complete"], stored["newest_time"], dict(stored["reached"]), cadence)

    def _due_at(self, row: OpenRow) -> float:
        """Return the time at which the row is complete by waiting.

        If a signal is NaN or infinite, nothing that may still come makes that any better.
        """
        is_missed = False
        for name in SIGNALS:
            if name in row.values:
                if not math.isfinite(row.values[name]):
                    return row.arrived + HOLD_SECONDS
            elif name in self.reached:
                last, stride = self.cadence.get(name, (None, None))
                is_missed |= last is None or stride is None or row.step >= last + stride
        return row.arrived + (SIGNAL_HOLD_SECONDS if is_missed else HOLD_SECONDS)

    def _is_expected(self, row: OpenRow) -> bool:
        """True if the row has exactly what is due at its step, and no row before it is missing."""
        if not self.cadence or any(name in DETECTOR_INPUTS and name not in self.cadence for name in row.values):
            return False
        for name, (last, stride) in self.cadence.items():
            if stride is None or row.step > last + stride:
                return False
            if row.step == last + stride and name not in row.values:
                return False
        return True

    def _take(self, steps: Sequence[int]) -> list[OpenRow]:
        rows = [self.rows.pop(step) for step in steps]
        for row in rows:
            self.last_complete = row.step
            for name in DETECTOR_INPUTS:
                if name in row.values:
                    before = self.cadence.get(name)
                    self.cadence[name] = (row.step, None if before is None else row.step - before[0])
        return rows
