"""Judges the speed of a run by its own past: twice as slow, slowly slower, or waiting for data.

The usual level is the fastest that the run has kept up for several blocks since the last declared change. It is not
learnt from a trailing window, which would follow a slow fall.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from math import isnan, nan, sqrt
from typing import Any

import numpy as np

from monitor.detection.row import Row
from monitor.detection.rows import Rows
from monitor.detection.throughput.blocks import Block, Blocks

USUAL_BLOCKS = 8
"""Blocks whose median is a level that the run has kept up; nothing is judged before so many."""
FAST_BLOCKS, SLOW_BLOCKS, END_BLOCKS = 3, 16, 4
"""Blocks that must all be slow for a sudden slowdown; whose median must be for a gradual one, or back for its end."""
SUDDEN, GRADUAL = 2.0, 1.25
"""The times as long that a step takes then."""
SUDDEN_NOISES, GRADUAL_NOISES = 6.0, 4.0
"""The same in standard deviations of the blocks of the run, where that is more."""
MIN_WAITING = 0.2
"""No smaller share of the time spent waiting for data is a slowdown. A usual share counts up to this."""
KEPT_BLOCKS = 64
ADOPT_BLOCKS = 240
"""After so many blocks a slowdown is the new normal; an hour at least, or 3,840 rows."""
QUIET_BLOCKS = 16
"""Blocks from the end of a slowdown to the next one at the earliest."""


class Change(StrEnum):
    BEGAN = "began"
    GREW = "grew"  # it is worse than ever by a tenth
    RECOVERED = "recovered"
    ADOPTED = "adopted"  # it has lasted so long that it is the new normal
    DECLARED = "declared"  # a declared change began: what was usual is of no use any more


class Cause(StrEnum):
    """How the run is slow."""

    SUDDEN = "sudden"
    GRADUAL = "gradual"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Finding:
    """A slowdown begins, grows or ends with `block`."""

    change: Change
    cause: Cause
    block: Block
    onset_step: int = 0
    usual: float = 0.0
    """The usual level of a block; of its waiting share for the cause WAITING."""
    value: float = 0.0
    """The same of the slow blocks."""
    noise: float = 0.0
    """Standard deviation of the level."""
    score: float = 0.0
    """How far beyond the threshold; 1 is the threshold itself."""
    usual_waiting: float | None = None


@dataclass(slots=True)
class Slow:
    """The slowdown that is open."""

    cause: Cause
    num_blocks: int
    worst: float


@dataclass(slots=True)
class Pace:
    """See the module. `observe` reads rows, in any grouping."""

    making: Blocks = field(default_factory=Blocks)
    blocks: list[Block] = field(default_factory=list)
    """The last ones since the last declared change."""
    usual: float | None = None
    usual_waiting: float | None = None
    accepted_waiting: float = MIN_WAITING
    """Up to this the usual share counts: a run that waits from its first step on is slow as well."""
    slow: Slow | None = None
    num_quiet: int = QUIET_BLOCKS
    """Blocks since the last slowdown ended."""
    is_warming_up: bool = True
    """The next block is the first of a process, which compiles and fills caches, and does not count."""
    changes_at: int | None = None
    """The step from which on a declared change applies."""

    # Rows

    def observe(self, rows: Rows) -> Iterator[tuple[int, Finding]]:
        """What the rows show, each with the number of the rows up to it."""
        if rows.times is None or not len(rows):
            return
        start = 0
        if self.changes_at is not None and self.is_due(int(rows.steps[-1])):
            start = int(np.searchsorted(rows.steps, self.changes_at))
            yield from self._judge_all(rows[:start], 0)
            if self.slow is not None and self.blocks:
                yield start, Finding(Change.DECLARED, self.slow.cause, self.blocks[-1])
            self._forget()
        yield from self._judge_all(rows[start:], start)

    def _judge_all(self, rows: Rows, start: int) -> Iterator[tuple[int, Finding]]:
        for end, block in self.making.read(rows):
            if (finding := self._judge(block)) is not None:
                yield start + end, finding

    def observe_row(self, row: Row) -> Finding | None:
        """The same for one row, which no declared change applies to (`is_due`)."""
        block = None if row.time is None else self.making.read_row(row)
        return None if block is None else self._judge(block)

    def is_due(self, step: int) -> bool:
        """Whether a declared change applies to a row."""
        return self.changes_at is not None and step >= self.changes_at

    def _judge(self, block: Block) -> Finding | None:
        if self.is_warming_up:
            self.is_warming_up = False
            return None
        if self.blocks and self.blocks[-1].counts_tokens != block.counts_tokens:
            ended = None if self.slow is None else Finding(Change.DECLARED, self.slow.cause, block)
            self._forget()
            return ended
        self.blocks = [*self.blocks[1 - KEPT_BLOCKS :], block]
        if len(self.blocks) < USUAL_BLOCKS:
            return None
        self._learn()
        return self._begin(block) if self.slow is None else self._follow(block, self.slow)

    def _learn(self) -> None:
        level = _median_level(self.blocks[-USUAL_BLOCKS:])
        self.usual = level if self.usual is None else min(self.usual, level)
        shares = [each.waiting for each in self.blocks[-USUAL_BLOCKS:] if each.waiting is not None]
        if len(shares) == USUAL_BLOCKS:
            share = _median(shares)
            self.usual_waiting = share if self.usual_waiting is None else min(self.usual_waiting, share)

    # Slow or not

    def _begin(self, block: Block) -> Finding | None:
        self.num_quiet += 1
        if self.num_quiet < QUIET_BLOCKS:
            return None
        for cause in Cause:
            value = self._value(cause)
            if value >= self._threshold(cause, 0.0) and value >= (threshold := self._threshold(cause, self._noise())):
                self.slow = Slow(cause, 0, value)
                return self._finding(Change.BEGAN, block, value, value / threshold)
        return None

    def _value(self, cause: Cause) -> float:
        """What all of the deciding blocks have reached."""
        match cause:
            case Cause.SUDDEN:
                return min([each.level for each in self.blocks[-FAST_BLOCKS:]])
            case Cause.GRADUAL:
                return _median_level(self.blocks[-SLOW_BLOCKS:]) if len(self.blocks) >= SLOW_BLOCKS else 0.0
            case Cause.WAITING:
                return min([each.waiting or 0.0 for each in self.blocks[-FAST_BLOCKS:]])

    def _threshold(self, cause: Cause, noise: float) -> float:
        """From this on the value is a slowdown. It does not fall as the noise rises."""
        assert self.usual is not None
        match cause:
            case Cause.SUDDEN:
                return max(SUDDEN * self.usual, self.usual + SUDDEN_NOISES * noise)
            case Cause.GRADUAL:
                return max(GRADUAL * self.usual, self.usual + GRADUAL_NOISES * noise)
            case Cause.WAITING:
                usual = min(self.usual_waiting or 0.0, self.accepted_waiting)
                return max(MIN_WAITING, 2 * usual + MIN_WAITING / 2)

    def _noise(self) -> float:
        """From block to block: a slow fall is no noise."""
        levels = np.array([each.level for each in self.blocks])
        return 1.4826 * _median(np.abs(levels[1:] - levels[:-1]).tolist()) / sqrt(2)

    def _follow(self, block: Block, slow: Slow) -> Finding | None:
        slow.num_blocks += 1
        value = self._value(slow.cause)
        if slow.num_blocks >= ADOPT_BLOCKS:
            return self._end(Change.ADOPTED, block, slow)
        if slow.num_blocks >= END_BLOCKS and self._present(slow.cause) <= self._end_level(slow.cause):
            return self._end(Change.RECOVERED, block, slow)
        if value >= 1.1 * slow.worst:
            slow.worst = value
            return self._finding(Change.GREW, block, value, value / self._threshold(slow.cause, self._noise()))
        return None

    def _present(self, cause: Cause) -> float:
        if cause is Cause.WAITING:
            return _median([each.waiting or 0.0 for each in self.blocks[-END_BLOCKS:]])
        return _median_level(self.blocks[-END_BLOCKS:])

    def _end_level(self, cause: Cause) -> float:
        """Half-way between the usual level and the lowest at which a slowdown begins."""
        assert self.usual is not None
        if cause is Cause.WAITING:
            return (min(self.usual_waiting or 0.0, self.accepted_waiting) + self._threshold(cause, self._noise())) / 2
        return (self.usual + self._threshold(Cause.GRADUAL, self._noise())) / 2

    def _end(self, change: Change, block: Block, slow: Slow) -> Finding:
        finding = self._finding(change, block, self._present(slow.cause), 0.0)
        self.slow, self.num_quiet = None, 0
        if change is Change.ADOPTED:
            self.usual, self.usual_waiting = _median_level(self.blocks), None
            self.blocks = self.blocks[-USUAL_BLOCKS:]
            self.accepted_waiting = max([self.accepted_waiting, *(each.waiting or 0.0 for each in self.blocks)])
        return finding

    def _finding(self, change: Change, block: Block, value: float, score: float) -> Finding:
        assert self.usual is not None
        assert self.slow is not None
        cause, usual = self.slow.cause, self.usual
        if cause is Cause.WAITING:
            usual = self.usual_waiting or 0.0
        noise = 0.0 if cause is Cause.WAITING else self._noise()
        onset = self._onset(cause) if change is Change.BEGAN else block.first_step
        return Finding(change, cause, block, onset, usual, value, noise, score, self.usual_waiting)

    def _onset(self, cause: Cause) -> int:
        """The first step of the last blocks that are not at the usual level."""
        end_level, first = self._end_level(cause), self.blocks[-1].first_step
        for each in reversed(self.blocks):
            if (each.waiting or 0.0 if cause is Cause.WAITING else each.level) <= end_level:
                break
            first = each.first_step
        return first

    # What the trainer does

    def begin_segment(self, *, is_new_process: bool) -> None:
        """A new segment begins: what lies before its first row is no step."""
        self.making.restart()
        self.is_warming_up = self.is_warming_up or is_new_process

    def skip(self) -> None:
        """The time up to the next row is an announced pause."""
        self.making.skip()

    def declare(self, step: int) -> None:
        """From `step` on the run has another normal speed."""
        self.changes_at = step

    def _forget(self) -> None:
        """What was usual is of no use any more."""
        self.making.restart()
        self.blocks, self.usual, self.usual_waiting, self.slow, self.changes_at = [], None, None, None, None
        self.is_warming_up = True

    # Persistence

    def to_dict(self) -> dict[str, Any]:
        names = ("usual", "usual_waiting", "accepted_waiting", "num_quiet", "is_warming_up", "changes_at")
        return {name: getattr(self, name) for name in names} | {
            "making": self.making.to_dict(),
            "blocks": [each.to_list() for each in self.blocks],
            "slow": None if self.slow is None else list(astuple(self.slow)),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Pace":
        """Raises KeyError or TypeError for data of another shape."""
        slow = None if data["slow"] is None else Slow(Cause(data["slow"][0]), *data["slow"][1:])
        parts = {
            "making": Blocks.from_dict(data["making"]),
            "blocks": [Block(*each) for each in data["blocks"]],
            "slow": slow,
        }
        return cls(**{**data, **parts})


def _median_level(blocks: list[Block]) -> float:
    return _median([each.level for each in blocks])


def _median(values: list[float]) -> float:
    """NaN where one of the values is. np.median is ten times slower on so few."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if any(map(isnan, ordered)):
        return nan
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
