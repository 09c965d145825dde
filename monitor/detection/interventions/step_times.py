"""Duration of a training step, from the times of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.row import Row
from monitor.detection.rows import Rows

MAX_DURATIONS, MIN_DURATIONS = 32, 8
"""Durations that are kept; as many as the median needs: the first step of a process may compile for minutes."""


@dataclass(slots=True)
class StepTimes:
    """The durations of the last steps."""

    last_step: int | None = None
    last_time: float = 0.0
    """Unix seconds, by the trainer's clock."""
    durations: list[float] = field(default_factory=list)
    """Seconds."""

    def update(self, rows: Rows) -> None:
        """Read the times, where there are any. Where clock or steps go back, nothing is learnt."""
        if rows.times is None or not len(rows):
            return
        steps, times = rows.steps, rows.times
        if self.last_step is not None:
            steps, times = np.append(self.last_step, steps), np.append(self.last_time, times)
        seconds, num_steps = np.diff(times), np.diff(steps)
        onward = (seconds > 0) & (num_steps > 0)
        new = (seconds[onward] / num_steps[onward])[-MAX_DURATIONS:]
        self.durations = [*self.durations, *new.tolist()][-MAX_DURATIONS:]
        self.last_step, self.last_time = int(steps[-1]), float(times[-1])

    def read_row(self, row: Row) -> None:
        """Take in one row."""
        if row.time is None:
            return
        if self.last_step is not None:
            seconds, num_steps = row.time - self.last_time, row.step - self.last_step
            if seconds > 0 and num_steps > 0:
                self.durations = [*self.durations[1 - MAX_DURATIONS :], seconds / num_steps]
        self.last_step, self.last_time = row.step, row.time

    def rewind(self) -> None:
        """A new segment begins: what lies between two segments is no step."""
        self.last_step = None

    def median(self) -> float | None:
        """Seconds that a step takes; None as long as too few are known."""
        return float(np.median(self.durations)) if len(self.durations) >= MIN_DURATIONS else None

    def to_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step, "last_time": self.last_time, "durations": pack(self.durations)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StepTimes":
        """Raises KeyError for data without one of the fields."""
        return cls(data["last_step"], data["last_time"], unpack(data["durations"]).tolist())
