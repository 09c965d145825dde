"""Judges the speed of a run by its own past: twice as slow, slowly slower, or waiting for data.

The usual level is the fastest that the run has kept up for several timings since the last declared change. It is not
learnt from a trailing window, which would follow a slow fall.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from math import isnan, nan, sqrt
from typing import Any

import numpy as np

from monitor.detection.rows import Row, Rows
from monitor.detection.throughput.timings import Stopwatch, Timing

USUAL_TIMINGS = 8
"""Timings whose median is a level that the run has kept up. Fewer timings are not judged."""
FAST_TIMINGS, SLOW_TIMINGS, END_TIMINGS = 3, 16, 4
"""Timings that must all be slow for a sudden slowdown; timings whose median decides a gradual one, and the end."""
SUDDEN, GRADUAL = 2.0, 1.25
"""Factor to the usual level at which a sudden and a gradual slowdown begin."""
SUDDEN_NOISES, GRADUAL_NOISES = 6.0, 4.0
"""Standard deviations above the usual level that such a slowdown has at least."""
MIN_WAITING = 0.2
"""Minimum share of time spent waiting for data that is a slowdown. A usual share counts up to this."""
KEPT_TIMINGS = 64
ADOPT_TIMINGS = 240
"""Timings after which a slowdown is the new normal: an hour at least, or 3,840 rows."""
QUIET_TIMINGS = 16
"""Minimum timings from the end of a slowdown to the next one."""


class Change(StrEnum):
    BEGAN = "began"
    GREW = "grew"  # it is worse than ever by a tenth
    RECOVERED = "recovered"
    ADOPTED = "adopted"  # it has lasted so long that it is the new normal
    DECLARED = "declared"  # a declared change began: the usual level is void


class SlowdownCause(StrEnum):
    """The kind of slowdown."""

    SUDDEN = "sudden"
    GRADUAL = "gradual"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Finding:
    """A slowdown begins, grows or ends with `timing`."""

    change: Change
    cause: SlowdownCause
    timing: Timing
    onset_step: int = 0
    usual: float = 0.0
    """Usual level of a timing; for the cause WAITING, the usual share of time spent waiting."""
    value: float = 0.0
    """Level or share of the slow timings."""
    noise: float = 0.0
    """Standard deviation of the level."""
    score: float = 0.0
    """Value as a fraction of the threshold."""
    usual_waiting: float | None = None


@dataclass(slots=True)
class Slow:
    """The slowdown that is open."""

    cause: SlowdownCause
    num_timings: int
    worst: float


@dataclass(slots=True)
class Pace:
    """State of the judgement. `observe` takes rows in any grouping."""

    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    timings: list[Timing] = field(default_factory=list)
    """Last timings since the last declared change, oldest first."""
    usual: float | None = None
    usual_waiting: float | None = None
    accepted_waiting: float = MIN_WAITING
    """Maximum usual share that counts: a run that waits from its first step on is slow as well."""
    slow: Slow | None = None
    num_quiet: int = QUIET_TIMINGS
    """Timings since the last slowdown ended."""
    is_warming_up: bool = True
    """The next timing is the first of a process, which compiles and fills caches, and does not count."""
    changes_at: int | None = None
    """First step to which the declared change applies; None without one."""

    # Rows

    def observe(self, rows: Rows) -> Iterator[tuple[int, Finding]]:
        """Yield what the rows show, each finding with the number of rows up to it."""
        if rows.times is None or not len(rows):
            return
        start = 0
        if self.changes_at is not None and self.is_due(int(rows.steps[-1])):
            start = int(np.searchsorted(rows.steps, self.changes_at))
            yield from self._judge_all(rows[:start], 0)
            if self.slow is not None and self.timings:
                yield start, Finding(Change.DECLARED, self.slow.cause, self.timings[-1])
            self._forget()
        yield from self._judge_all(rows[start:], start)

    def _judge_all(self, rows: Rows, start: int) -> Iterator[tuple[int, Finding]]:
        for end, timing in self.stopwatch.read(rows):
            if (finding := self._judge(timing)) is not None:
                yield start + end, finding

    def observe_row(self, row: Row) -> Finding | None:
        """Return what one row shows. No declared change may apply to the row (`is_due`)."""
        timing = None if row.time is None else self.stopwatch.read_row(row)
        return None if timing is None else self._judge(timing)

    def is_due(self, step: int) -> bool:
        """True if a declared change applies to the row of this step."""
        return self.changes_at is not None and step >= self.changes_at

    def _judge(self, timing: Timing) -> Finding | None:
        if self.is_warming_up:
            self.is_warming_up = False
            return None
        if self.timings and self.timings[-1].counts_tokens != timing.counts_tokens:
            ended = None if self.slow is None else Finding(Change.DECLARED, self.slow.cause, timing)
            self._forget()
            return ended
        self.timings = [*self.timings[1 - KEPT_TIMINGS :], timing]
        if len(self.timings) < USUAL_TIMINGS:
            return None
        self._learn()
        return self._begin(timing) if self.slow is None else self._follow(timing, self.slow)

    def _learn(self) -> None:
        level = _median_level(self.timings[-USUAL_TIMINGS:])
        self.usual = level if self.usual is None else min(self.usual, level)
        shares = [each.waiting for each in self.timings[-USUAL_TIMINGS:] if each.waiting is not None]
        if len(shares) == USUAL_TIMINGS:
            share = _median(shares)
            self.usual_waiting = share if self.usual_waiting is None else min(self.usual_waiting, share)

    # Slow or not

    def _begin(self, timing: Timing) -> Finding | None:
        self.num_quiet += 1
        if self.num_quiet < QUIET_TIMINGS:
            return None
        for cause in SlowdownCause:
            value = self._value(cause)
            if value >= self._threshold(cause, 0.0) and value >= (threshold := self._threshold(cause, self._noise())):
                self.slow = Slow(cause, 0, value)
                return self._finding(Change.BEGAN, timing, value, value / threshold)
        return None

    def _value(self, cause: SlowdownCause) -> float:
        """Return the level or share that the deciding timings have reached."""
        match cause:
            case SlowdownCause.SUDDEN:
                return min([each.level for each in self.timings[-FAST_TIMINGS:]])
            case SlowdownCause.GRADUAL:
                return _median_level(self.timings[-SLOW_TIMINGS:]) if len(self.timings) >= SLOW_TIMINGS else 0.0
            case SlowdownCause.WAITING:
                return min([each.waiting or 0.0 for each in self.timings[-FAST_TIMINGS:]])

    def _threshold(self, cause: SlowdownCause, noise: float) -> float:
        """Return the smallest value that is a slowdown. It does not fall as the noise rises."""
        assert self.usual is not None
        match cause:
            case SlowdownCause.SUDDEN:
                return max(SUDDEN * self.usual, self.usual + SUDDEN_NOISES * noise)
            case SlowdownCause.GRADUAL:
                return max(GRADUAL * self.usual, self.usual + GRADUAL_NOISES * noise)
            case SlowdownCause.WAITING:
                usual = min(self.usual_waiting or 0.0, self.accepted_waiting)
                return max(MIN_WAITING, 2 * usual + MIN_WAITING / 2)

    def _noise(self) -> float:
        """Return the standard deviation from timing to timing: a slow fall is no noise."""
        levels = np.array([each.level for each in self.timings])
        return 1.4826 * _median(np.abs(levels[1:] - levels[:-1]).tolist()) / sqrt(2)

    def _follow(self, timing: Timing, slow: Slow) -> Finding | None:
        slow.num_timings += 1
        value = self._value(slow.cause)
        if slow.num_timings >= ADOPT_TIMINGS:
            return self._end(Change.ADOPTED, timing, slow)
        if slow.num_timings >= END_TIMINGS and self._present(slow.cause) <= self._end_level(slow.cause):
            return self._end(Change.RECOVERED, timing, slow)
        if value >= 1.1 * slow.worst:
            slow.worst = value
            return self._finding(Change.GREW, timing, value, value / self._threshold(slow.cause, self._noise()))
        return None

    def _present(self, cause: SlowdownCause) -> float:
        if cause is SlowdownCause.WAITING:
            return _median([each.waiting or 0.0 for each in self.timings[-END_TIMINGS:]])
        return _median_level(self.timings[-END_TIMINGS:])

    def _end_level(self, cause: SlowdownCause) -> float:
        """Return the value half-way between the usual one and the lowest at which a slowdown begins."""
        assert self.usual is not None
        if cause is SlowdownCause.WAITING:
            return (min(self.usual_waiting or 0.0, self.accepted_waiting) + self._threshold(cause, self._noise())) / 2
        return (self.usual + self._threshold(SlowdownCause.GRADUAL, self._noise())) / 2

    def _end(self, change: Change, timing: Timing, slow: Slow) -> Finding:
        finding = self._finding(change, timing, self._present(slow.cause), 0.0)
        self.slow, self.num_quiet = None, 0
        if change is Change.ADOPTED:
            self.usual, self.usual_waiting = _median_level(self.timings), None
            self.timings = self.timings[-USUAL_TIMINGS:]
            self.accepted_waiting = max([self.accepted_waiting, *(each.waiting or 0.0 for each in self.timings)])
        return finding

    def _finding(self, change: Change, timing: Timing, value: float, score: float) -> Finding:
        assert self.usual is not None
        assert self.slow is not None
        cause, usual = self.slow.cause, self.usual
        if cause is SlowdownCause.WAITING:
            usual = self.usual_waiting or 0.0
        noise = 0.0 if cause is SlowdownCause.WAITING else self._noise()
        onset = self._onset(cause) if change is Change.BEGAN else timing.first_step
        return Finding(change, cause, timing, onset, usual, value, noise, score, self.usual_waiting)

    def _onset(self, cause: SlowdownCause) -> int:
        """Return the first step of the last timings that are not at the usual level."""
        end_level, first = self._end_level(cause), self.timings[-1].first_step
        for each in reversed(self.timings):
            if (each.waiting or 0.0 if cause is SlowdownCause.WAITING else each.level) <= end_level:
                break
            first = each.first_step
        return first

    # Actions of the trainer

    def begin_segment(self, *, is_new_process: bool) -> None:
        """Begin a new segment: the time up to its first row is no step."""
        self.stopwatch.restart()
        self.is_warming_up = self.is_warming_up or is_new_process

    def skip(self) -> None:
        """Ignore the time up to the next row: an announced pause, or a hold."""
        self.stopwatch.skip()

    def declare(self, step: int) -> None:
        """Learn the normal speed again from `step` on."""
        self.changes_at = step

    def _forget(self) -> None:
        """Forget the usual level after a declared change."""
        self.stopwatch.restart()
        self.timings, self.usual, self.usual_waiting, self.slow, self.changes_at = [], None, None, None, None
        self.is_warming_up = True

    # Persistence

    def to_dict(self) -> dict[str, Any]:
        names = ("usual", "usual_waiting", "accepted_waiting", "num_quiet", "is_warming_up", "changes_at")
        return {name: getattr(self, name) for name in names} | {
            "making": self.stopwatch.to_dict(),
            "blocks": [list(each) for each in self.timings],
            "slow": None if self.slow is None else list(astuple(self.slow)),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Pace":
        """Restore a pace from `to_dict`. Raises KeyError or TypeError for data of another shape."""
        rest = {**data}
        stopwatch, timings, slow = rest.pop("making"), rest.pop("blocks"), rest.pop("slow")
        return cls(
            stopwatch=Stopwatch.from_dict(stopwatch),
            timings=[Timing(*each) for each in timings],
            slow=None if slow is None else Slow(SlowdownCause(slow[0]), *slow[1:]),
            **rest,
        )


def _median_level(timings: list[Timing]) -> float:
    return _median([each.level for each in timings])


def _median(values: list[float]) -> float:
    """Return the median, NaN if a value is NaN. np.median is ten times slower on few values."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if any(map(isnan, ordered)):
        return nan
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
