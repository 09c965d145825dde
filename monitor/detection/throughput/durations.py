"""Durations from the times of rows: the longest gaps, the silence that is a stall, and the median of a step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Row, Rows

MIN_SECONDS = 120.0
"""Minimum silence that is a stall: nobody is to be woken for less."""
FIRST_SECONDS = 600.0
"""The least that counts before the gaps of a run are known: it loads data, compiles, restores."""
MIN_GAPS = 8
"""Gaps from which on they are known."""
TIMES_MEAN, MAX_TIMES_MEAN = 10.0, 600.0
"""A stall is ten times as long as a gap on average, up to ten minutes: checkpoints of slow steps are slow, too."""
TIMES_SECOND = 4.0
"""Factor of a stall to the second longest gap: a gap that happened twice is usual."""
TIMES_LONGEST = 1.5
"""Factor of a stall to the longest gap: an unannounced evaluation is an alarm the first time only."""
MAX_SECONDS = 3600.0
"""Maximum silence that one gap makes normal; a gap that happened twice may make more."""
MAX_AGE_ROWS = 20_000
"""Rows after which a gap no longer counts."""
NUM_KEPT, BLOCK_ROWS = 2, 2_500
"""Gaps that are kept, the longest of each block: while the longest of all ages, younger ones are known."""
MIN_VECTOR_ROWS = 32
"""Minimum number of rows whose times are read as an array; of fewer rows they are read one by one."""


def stall_limit(longest: float, second: float) -> float:
    """Seconds of silence that are a stall, by the longest and the second longest gap."""
    once = min(TIMES_LONGEST * longest, MAX_SECONDS)
    twice = min(TIMES_SECOND * second, max(MAX_SECONDS, TIMES_LONGEST * second))
    return max(MIN_SECONDS, once, twice)


@dataclass(slots=True)
class RowGaps:
    """The longest gaps of a run, by the trainer's clock; those between two segments and announced pauses do not count.

    A gap that was a stall counts as well, because the run got over it by itself: see `stall_limit` for how far.
    """

    num_gaps: int = 0
    seconds: float = 0.0
    """Sum of all gaps."""
    longest: list[list[float]] = field(default_factory=list)
    """[seconds, number of the gap], oldest first: of each block the longest."""
    last_time: float | None = None

    def __post_init__(self) -> None:
        self.longest.sort(key=itemgetter(1))  # a stored state may have them by their length

    def update(self, rows: Rows) -> None:
        """Read the rows, where they have times."""
        if rows.times is None:
            return
        if len(rows) < MIN_VECTOR_ROWS:
            for time in rows.times.tolist():
                self.add(time)
            return
        known = rows.times if self.last_time is None else np.append(self.last_time, rows.times)
        gaps, num_before, start = known[1:] - known[:-1], self.num_gaps, 0
        while start < len(gaps):
            self.num_gaps = num_before + start + 1
            end = start + BLOCK_ROWS - self.num_gaps % BLOCK_ROWS
            longer = gaps[start:end] > self._shortest()
            if not longer.any():
                start = end
                continue
            start += int(longer.argmax()) + 1
            self.num_gaps = num_before + start
            self._keep(float(gaps[start - 1]))
        self.num_gaps = num_before + len(gaps)
        self.seconds = float(np.append(self.seconds, gaps).cumsum()[-1])  # one after the other, as `add` does
        self.last_time = float(rows.times[-1])

    def add(self, time: float) -> None:
        """Read one row."""
        last, self.last_time = self.last_time, time
        if last is not None:
            gap = time - last
            self.num_gaps += 1
            self.seconds += gap
            if gap > self._shortest():
                self._keep(gap)

    def _shortest(self) -> float:
        """Return the seconds above which the present gap, number `num_gaps`, is kept."""
        newest = self.longest[-NUM_KEPT:]
        if len(newest) < NUM_KEPT or newest[0][1] // BLOCK_ROWS < self.num_gaps // BLOCK_ROWS:
            return -math.inf
        return min(newest)[0]

    def _keep(self, seconds: float) -> None:
        oldest, block = self.num_gaps - MAX_AGE_ROWS, self.num_gaps // BLOCK_ROWS
        earlier = [each for each in self.longest if each[1] > oldest and each[1] // BLOCK_ROWS < block]
        present = [each for each in self.longest if each[1] // BLOCK_ROWS == block] + [[seconds, self.num_gaps]]
        self.longest = earlier + sorted(sorted(present)[-NUM_KEPT:], key=itemgetter(1))

    def skip(self) -> None:
        """The time up to the next row is no gap."""
        self.last_time = None

    def limit(self, arrivals: Sequence[float] = ()) -> float:
        """Seconds without a step that are a stall. `arrivals`: seconds between the last reports with steps.

        Rows of a file that is copied every ten minutes have short gaps, and arrive with long ones.
        """
        oldest = self.num_gaps - MAX_AGE_ROWS
        gaps = [seconds for seconds, number in self.longest if number > oldest]
        limits = [stall_limit(*sorted([0.0, 0.0, *found], reverse=True)[:2]) for found in (gaps, list(arrivals))]
        if self.num_gaps < MIN_GAPS:
            return max(*limits, FIRST_SECONDS)
        return max(*limits, min(TIMES_MEAN * self.seconds / self.num_gaps, MAX_TIMES_MEAN))


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
