"""Slow divergence: has the level of the loss risen farther than it ever wanders in this run?

The level of a healthy loss wanders: with the data, with the optimiser, on every time scale. So a rise is judged at each
scale by the rises that this run has made at that scale before, as the Allan variance (Allan 1966) judges a clock:

1. The loss is averaged over blocks of 16, 32, ... 2,048 rows. Rows are winsorised at the band's limits, and a
   block that is mostly out of band is left out: what is abrupt is not slow.
2. The rise of a block is its distance from the lower quartile of the eight blocks before it, a level that the run held
   again and again, not its luckiest stretch.
3. A rise is an alarm when it exceeds MIN_RISE noises, MEAN_RISES times the mean of the rises of this scale so far, and
   MARGIN times the largest of them. A scale with a short past borrows the mean of the next shorter one, times sqrt(2)
   as in a random walk.

One rise is one alarm. It lasts until half of it is gone, and is an alarm again only once the rise has doubled.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from monitor.detection.encoding import dump_fields, load_fields, pack, unpack
from monitor.detection.rows import Floats, Ints

BLOCK = 16  # rows of the shortest blocks
UNKNOWN = 1e300  # a lowest level that is not known yet; JSON holds it as a number
NUM_SCALES = 8  # of BLOCK * 2**k rows
PAST_BLOCKS = 8  # blocks that a block is compared with
MIN_PAST_BLOCKS = 4
TREND = 2.0  # noises by which the level falls within those blocks; less is wandering
USUAL_SCALE = 1  # the usual level is the median of the last blocks of this scale: of 256 rows
MIN_RISES = 16  # before so many a scale borrows from the next shorter one
MEMORY = 64  # rises after which the weight of a rise has fallen to 1/e
MIN_RISE = 4.0  # noises; less is not worth an alarm
MEAN_RISES = 8.0
MARGIN = 1.5
FORGET = 0.5 ** (1 / 256)  # per block: the largest rise of the past has halved after 256 blocks
END_FRACTION = 0.5  # of the rise that began the alarm
HELD_SCORE = 0.999  # of a rise that has been an alarm already and goes on


@dataclass(slots=True)
class Scale:
    """The blocks of one length, and how far the level moves from one to the next. Rises in noises."""

    means: list[float] = field(default_factory=list)
    """Means of the last PAST_BLOCKS blocks, oldest first."""
    ends: list[int] = field(default_factory=list)
    """Last steps of these blocks."""
    recent: list[float] = field(default_factory=list)
    """The newest rises, which may belong to the one that is being judged: PAST_BLOCKS at most."""
    num_rises: int = 0
    """Rises above 0 before the recent ones; a fall says nothing of how far the level rises."""
    mean: float = 0.0
    largest: float = 0.0
    """Mean and maximum of these, with forgetting."""
    borrowed: float = 0.0
    """Mean that the next shorter scale suggests, used while the scale has few rises itself."""

    def usual_rise(self) -> float:
        return self.mean if self.num_rises >= MIN_RISES else max(self.mean, self.borrowed)

    def borrow(self, shorter: "Scale") -> None:
        """Borrow the mean as in a random walk. It changes slowly: the judged rise must not raise its own threshold."""
        mean = sqrt(2.0) * shorter.usual_rise()
        self.borrowed = self.borrowed + (mean - self.borrowed) / PAST_BLOCKS if self.borrowed else mean

    def reference(self) -> float:
        return sorted(self.means)[len(self.means) // 4]

    def usual_level(self, min_trend: float) -> float:
        """The median of the last blocks, less their trend where they fall by more than `min_trend`.

        A trend was there before: what fell in the newer half alone is an easy stretch of the data.
        """
        means, half = self.means, len(self.means) // 2
        if half == 0:
            return means[0]
        fall, quarter = (sum(means[:half]) - sum(means[-half:])) / half, half // 2
        if quarter:
            fall = min(fall, 2.0 * (sum(means[:quarter]) - sum(means[half - quarter : half])) / quarter)
        return sorted(means)[half] - (fall if fall > min_trend else 0.0)

    def start(self, reference: float) -> int:
        """The last step of the newest block that was not above the reference."""
        return next(end for end, mean in zip(self.ends[::-1], self.means[::-1], strict=True) if mean <= reference)

    def add_rise(self, rise: float) -> None:
        self.recent.append(rise)
        if len(self.recent) <= PAST_BLOCKS:
            return
        past = self.recent.pop(0)
        self.largest = max(self.largest * FORGET, past)
        if past > 0.0:
            self.num_rises = min(self.num_rises + 1, MEMORY)
            past = min(past, 4.0 * self.mean) if self.num_rises > PAST_BLOCKS else past  # winsorised
            self.mean += (past - self.mean) / self.num_rises

    def add_block(self, mean: float, end: int) -> None:
        self.means.append(mean)
        self.ends.append(end)
        if len(self.means) > PAST_BLOCKS:
            del self.means[0], self.ends[0]

    def state(self) -> list[Any]:
        numbers = [self.num_rises, self.mean, self.largest, self.borrowed]
        steps = [end - before for before, end in pairwise([0, *self.ends])]
        return [steps, pack([*self.means, *self.recent]), pack(numbers)]

    @classmethod
    def from_state(cls, steps: Sequence[int], values: str, numbers: str) -> "Scale":
        """`steps`: from the end of one block to that of the next."""
        num_rises, *moments = unpack(numbers).tolist()
        both = unpack(values).tolist()
        ends = np.cumsum(np.array(steps, dtype=np.int64)).tolist()
        return cls(both[: len(steps)], ends, both[len(steps) :], int(num_rises), *moments)


@dataclass(slots=True)
class OngoingRise:
    """A rise that was an alarm and is not over."""

    reference: float
    """The level before it."""
    start_step: int
    threshold: float
    """Nats above the reference that were an alarm."""
    height: float
    """Nats above the reference at the last alarm."""


class LevelDrift:
    """The level at every scale, the present rise, and the lowest level so far (for the plateau advisory)."""

    NUMBERS = ("lowest_level", "lowest_step", "drift", "rise_step", "reference", "num_outside")
    ARRAYS, LISTS = ("block", "halves"), ("block",)

    def __init__(self) -> None:
        self.block: list[float] = []  # values since the last full block, winsorised
        self.num_outside = 0  # of these, how many were out of band
        self.halves = np.full(NUM_SCALES, np.nan)  # first halves of the present blocks of each scale
        self.scales = [Scale() for _ in range(NUM_SCALES)]
        self.rise: OngoingRise | None = None
        self.lowest_level, self.lowest_step = UNKNOWN, 0
        self.drift, self.rise_step, self.reference = 0.0, 0, -UNKNOWN  # at the last full block

    def restarted(self) -> "LevelDrift":
        """Return the drift after a declared change: the level is learnt anew, its wandering stays known."""
        drift = LevelDrift()
        drift.scales = [replace(scale, means=[], ends=[]) for scale in self.scales]
        return drift

    def update(self, x: Floats, lower_limits: Floats, upper_limits: Floats, noises: Floats, steps: Ints) -> Floats:
        """Take in values x[N]. Returns [4, N], or [4, 1] where all are the same: drift, step of the lowest level, first
        step of the rise, and the level before it, or the usual level where nothing rises.

        A row has what was known at the last full block; drift is in alarm thresholds.
        """
        first = BLOCK - 1 - len(self.block)  # the row that ends the present block
        inside = np.maximum(np.minimum(x, upper_limits), lower_limits)
        outside = inside != x
        values = np.concatenate([self.block, inside])
        full = len(values) // BLOCK * BLOCK
        self.block = values[full:].tolist()
        if not full:
            self.num_outside += int(np.count_nonzero(outside))
            return np.array(self._row())[:, None]
        means = values[:full].reshape(-1, BLOCK).mean(axis=1).tolist()
        counts = [0] * (len(means) + (len(self.block) > 0))
        if np.count_nonzero(outside):
            counts = np.add.reduceat(outside, [0, *range(first + 1, len(x), BLOCK)], dtype=np.int64).tolist()
        counts[0] += self.num_outside
        self.num_outside = counts[-1] if len(self.block) else 0
        ends = slice(first, None, BLOCK)
        noises_at_ends = noises[ends].tolist() if len(noises) == len(x) else noises.tolist() * len(means)
        steps_at_ends = steps[ends].tolist()
        rows, alarms = [self._row()], []
        for k, mean in enumerate(means):
            end = first + k * BLOCK
            if counts[k] <= BLOCK // 2 and self._add_block(mean, noises_at_ends[k], steps_at_ends[k]):
                alarms.append((end, self.drift))
                self.drift = HELD_SCORE
            rows.append(self._row())
        sizes = [first, *[BLOCK] * (len(means) - 1), len(x) - first - (len(means) - 1) * BLOCK]
        columns: Floats = np.repeat(np.array(rows).T, sizes, axis=1)
        for end, drift in alarms:
            columns[0, end] = drift
        return columns

    def add(
        self, x: float, lower_limit: float, upper_limit: float, noise: float, step: int
    ) -> tuple[float, int, int, float]:
        """Take in one value; return its column of `update`."""
        inside = max(min(x, upper_limit), lower_limit)
        self.block.append(inside)
        self.num_outside += inside != x
        if len(self.block) < BLOCK:
            return self._row()
        mean, num_outside = float(np.add.reduce(np.array(self.block))) / BLOCK, self.num_outside
        self.block, self.num_outside = [], 0
        if not (num_outside <= BLOCK // 2 and self._add_block(mean, noise, step)):
            return self._row()
        alarm, self.drift = self.drift, HELD_SCORE
        return (alarm, *self._row()[1:])

    def _row(self) -> tuple[float, int, int, float]:
        return self.drift, self.lowest_step, self.rise_step, self.reference

    def _add_block(self, mean: float, noise: float, end: int) -> bool:
        """Take in a block of BLOCK values; True when it is an alarm."""
        if mean <= self.lowest_level:
            self.lowest_level, self.lowest_step = mean, end
        num_scale, level, begun = 0, mean, None
        while True:
            scale = self.scales[num_scale]
            if len(scale.means) >= MIN_PAST_BLOCKS:
                reference = scale.reference()
                rise = (level - reference) / noise
                if num_scale == 0:
                    self.drift = min(max(rise / MIN_RISE, 0.0), HELD_SCORE)
                if rise >= MIN_RISE and begun is None and rise >= (threshold := self._threshold(num_scale)):
                    begun = OngoingRise(reference, scale.start(reference), threshold * noise, rise * noise)
                scale.add_rise(rise)
            scale.add_block(level, end)
            if num_scale > 0 and scale.num_rises < MIN_RISES:
                scale.borrow(self.scales[num_scale - 1])
            if num_scale == USUAL_SCALE and self.rise is None:
                self.reference = scale.usual_level(TREND * noise)
            num_scale += 1
            if num_scale == NUM_SCALES:
                break
            half, self.halves[num_scale] = float(self.halves[num_scale]), level
            if half != half:  # nan: this was the first half
                break
            level, self.halves[num_scale] = (half + level) / 2.0, np.nan
        if self.rise is not None:
            return self._follow(self.rise, mean)
        if begun is None:
            return False
        self.rise, self.drift = begun, begun.height / begun.threshold
        self.rise_step, self.reference = begun.start_step, begun.reference
        return True

    def _threshold(self, num_scale: int) -> float:
        """The rise, in noises, that is an alarm at this scale."""
        scale = self.scales[num_scale]
        return max(MIN_RISE, MEAN_RISES * scale.usual_rise(), MARGIN * scale.largest)

    def _follow(self, rise: OngoingRise, mean: float) -> bool:
        """The present rise goes on, doubles (True) or ends."""
        height = mean - rise.reference
        self.drift = height / rise.threshold
        if height < END_FRACTION * rise.threshold:
            self.rise = None
        elif height >= 2.0 * rise.height:
            rise.height = height
            return True
        else:
            self.drift = min(self.drift, HELD_SCORE)
        return False

    def accept(self) -> None:
        """The present level is the new normal: no rise is measured from before it."""
        self.rise, self.drift, self.reference = None, 0.0, -UNKNOWN
        self.halves[:] = np.nan
        for scale in self.scales:
            scale.means, scale.ends = [], []

    def state_dict(self) -> dict[str, Any]:
        scales = [scale.state() for scale in self.scales]
        rise = None if self.rise is None else asdict(self.rise)
        return dump_fields(self, self.NUMBERS, self.ARRAYS) | {"scales": scales, "rise": rise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_fields(self, state, self.NUMBERS, self.ARRAYS, self.LISTS)
        self.scales = [Scale.from_state(*scale) for scale in state["scales"]]
        self.rise = None if state["rise"] is None else OngoingRise(**state["rise"])
