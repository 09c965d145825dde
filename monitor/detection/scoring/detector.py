"""One signal's detector: how surprising are the last rows, given the run's own past?

Values in, scores out; vectorised over the rows of a report. Three steps:

1. A value's residual z against the median of the last few values that may teach, in robust standard deviations of the
   residuals of the past. What is out of band does not teach.
2. Over each span of w rows the sum of all z but the largest, over sqrt(w - 1): a scan statistic (Glaz, Naus and
   Wallenstein 2001) that one hard batch cannot raise, whatever its size. A single row has its own, span 1.
3. Each statistic against the threshold from its own tail (see `tails`): evidence 1.0 is the alarm.

Slow divergence is a fourth thing: how far the level lies above the lowest level so far.

Levels are fitted on an absolute grid of observations, so any split of a stream into reports gives the same scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Bools, Floats, Ints
from monitor.detection.scoring.baseline import BLOCK, CHUNK, PRIOR, Baseline, Block
from monitor.detection.scoring.robust import REACH, SPANS, mean, statistics
from monitor.detection.scoring.signals import Signal
from monitor.detection.scoring.threshold import TailThresholds
from monitor.detection.settings import DetectionSettings

FLOORS = np.array([6.5, 5.0, 5.5, 6.5, 8.0, 5.0])
"""The least threshold of each span, and of the drift, in standard deviations: less is not worth waking anybody for."""
PRIORS = np.array([PRIOR, PRIOR, PRIOR, PRIOR, PRIOR, 5.0])
"""Thresholds of a run whose tail is not known yet."""
HUGE = 1e100  # nothing that trains gets there: as good as infinite, and sums of squares below it do not overflow
NEVER = 1e300  # a lowest level that is not known yet
OFTEN = 4 * CHUNK  # observations between two fits of the tails, in a run that has more
ADDS_Z = 2.0  # a row below this is no alarm, whatever came before it
SPARSE = 5
"""In rows so many steps apart a real spike may be one row: there the size against the tail decides. In closer rows a
single one is a hard batch, whatever its size, unless the next row is out of band too."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Columns over N rows; a row without an observation has z = evidence = single = drift = 0.

    `z`: residual in robust standard deviations, positive for trouble; `evidence`, `single` (of the row alone) and
    `drift`: 1.0 is the alarm threshold; `expected` and `scale` in the signal's own unit, of broken rows too, nan where
    nothing is known; `low_step`: when the level was lowest; `broken`: present, not finite (or HUGE).
    """

    z: Floats
    evidence: Floats
    single: Floats
    drift: Floats
    expected: Floats
    scale: Floats
    low_step: Floats
    broken: Bools


class SignalDetector(Baseline):
    """See the module. State is a few hundred numbers: `state_dict` / `load_state_dict` are exact."""

    NUMBERS = (
        *("count", "level", "noise", "old_noise", "low", "low_step", "drift", "silent", "drifting", "last_alarm"),
        *("declared", "memory", "last_z"),
    )
    ARRAYS = ("window", "residuals", "block", "z", "tamed")

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        # one in so many rows for each sum; the drift moves so slowly that a chunk of it counts as one value
        self.probability = settings.false_alarms_per_10k / 1e4 * np.array([1.0] * len(SPANS) + [CHUNK / 4])
        self.tails = TailThresholds(FLOORS, PRIORS)
        super().__init__(signal, settings)

    def _forget(self) -> None:
        super()._forget()
        self.z = np.zeros(REACH)  # z of this chunk, after the REACH before it
        self.tamed = np.full(REACH, np.nan)  # the last REACH values with what is out of band cut off
        self.low, self.low_step = NEVER, 0  # the lowest level so far
        self.drift = 0.0  # how far above it the level is now, in noises
        self.last_z = 0.0
        self.drifting = 0  # observations for which the drift is an alarm
        self.last_alarm = -CHUNK  # the observation of the last alarm

    def shift(self) -> None:
        """A declared change: the level is learnt anew from the rows that follow; noise and tails stay.

        Until a few rows are known only a gross rise over the old level is an alarm. A change while the one
        before it settles (a chunk) changes nothing: declared at every row, seven in eight are watched all the same.
        """
        if self._settled() and not (self.declared and self.count < CHUNK):
            self.old_noise, self.declared = self.noise, True
            self._forget()

    def feed(self, values: Floats, present: Bools, steps: Ints, gaps: Ints) -> Scores:
        """Judge N rows; `gaps`: steps since the row before."""
        finite = present & (np.abs(values) < HUGE)
        where = finite.nonzero()[0]
        x = values[where]
        if self.signal.log:
            x = np.log(np.maximum(x, 1e-30))
        table = np.zeros((7, len(values)))  # as in Scores
        table[4:6] = np.nan
        broken = present & ~finite
        strange = broken.nonzero()[0]
        before = np.cumsum(finite)[strange] if len(strange) else strange
        start = 0
        for end in sorted({*before.tolist(), len(x)}):
            while start < end:
                span = self._period()
                at = where[start : min(start + span - self.count % span, end)]
                table[:, at] = self._span(x[start : start + len(at)], steps[at], gaps[at])
                start += len(at)
            if len(strange) and self.count > 0:
                table[4:6, strange[before == end]] = [[self.level], [self._scale()]]
        if self.signal.log:
            table[4] = np.exp(table[4])
            table[5] *= table[4]
        z, evidence, single, drift, expected, scale, low_step = table
        return Scores(z, evidence, single, drift, expected, scale, low_step, broken)

    def _period(self) -> int:
        """Observations between two fits of the tails."""
        return OFTEN if self.count >= OFTEN else CHUNK

    def _span(self, x: Floats, steps: Ints, gaps: Ints) -> Floats:
        """Judge values between two fits of the tails. Returns the table of `feed` for them."""
        blocks = list(self._blocks(x))
        level, scale, top, _, memory = _by_value(blocks)
        table = np.empty((7, len(x)))
        table[4] = level if self.count > len(x) else np.where(np.isnan(level), x, level)
        table[5] = scale
        table[0] = (x - table[4]) / scale
        if self.signal.two_sided:
            np.abs(table[0], out=table[0])
        self.z = np.concatenate([self.z, np.minimum(np.maximum(self._news(table[0], memory), -4.0), 60.0)])
        table[3], table[6] = self._drifts(x, top, blocks, steps)
        whole = len(self.z) - REACH  # of the chunk
        size = whole if whole >= CHUNK else len(x)
        stats = np.empty((len(SPANS) + 1, size))
        statistics(self.z[-size - REACH :], stats[:-1])
        stats[-1, -len(x) :] = table[3]
        table[3] /= self.tails.thresholds[-1]
        ratios = stats[:-1, -len(x) :] / self.tails.thresholds[:-1, None]
        table[2] = np.maximum(ratios[0], 0.0)
        ratios[0] *= gaps >= SPARSE
        # the sums of a spike outlast it: an alarm needs a row that adds to them
        table[1] = np.where(table[0] >= ADDS_Z, np.maximum(np.maximum.reduce(ratios), 0.0) / self.signal.caution, 0.0)
        if size >= CHUNK:
            self._learn(stats, gaps)
        return table

    def _news(self, z: Floats, memory: Floats) -> Floats:
        """z without what the value before it foretold (Box and Jenkins 1970); of unit variance like z."""
        last, self.last_z = self.last_z, float(z[-1])
        if not np.count_nonzero(memory):
            return z
        before = np.concatenate([[last], z[:-1]])
        return np.where(memory == 0.0, z, (z - memory * before) / np.sqrt(1.0 - np.float_power(memory, 2)))

    def _drifts(self, x: Floats, top: Floats, blocks: Sequence[Block], steps: Ints) -> tuple[Floats, Floats]:
        """How far the mean of the last 12 values lies above the lowest level, in noises; and when that was."""
        drifts, low_steps = np.zeros(len(x)), np.zeros(len(x))
        if not self.signal.drifts:
            return drifts, low_steps
        known = np.concatenate([self.tamed, np.minimum(x, top)])
        self.tamed = known[-REACH:]
        means = mean(known)
        end = 0
        for block in blocks:
            begin, end = end, end + block.size
            low_steps[begin:end] = self.low_step
            if self.low != NEVER:
                inert = sqrt((1.0 + block.memory) / (1.0 - block.memory))  # means of correlated values vary more
                drifts[begin:end] = (means[begin:end] - self.low) / (block.noise * inert)
                drifts[begin:end][np.isnan(means[begin:end])] = 0.0
                self.drift = float(drifts[end - 1])
            if block.adopted:
                self.low = NEVER
            if block.after is not None:
                self._lowest(block.after, int(steps[end - 1]))
        return drifts, low_steps

    def _lowest(self, level: float, step: int) -> None:
        if level <= self.low:
            self.low, self.low_step = level, step
        self.drifting = self.drifting + BLOCK if self.drift >= self.tails.thresholds[-1] else 0
        if self.drifting >= self.settings.adopt_rows:
            self.low, self.low_step, self.drifting = level, step, 0

    def _learn(self, stats: Floats, gaps: Ints) -> None:
        """Teach the tails the chunks that are full, without alarms and their aftermath."""
        first, size = self.count - stats.shape[1], stats.shape[1] // CHUNK * CHUNK
        ends = np.arange(CHUNK - 1, size, CHUNK)
        sparse = gaps[ends - stats.shape[1]] >= SPARSE  # counted from the last value, which both end with
        stats, self.z = stats[:, :size], self.z[size:]
        calm = stats < self.tails.thresholds[:, None]
        calm[0] |= np.repeat(~sparse, CHUNK)  # hard batches teach
        rows = np.arange(first, first + size)
        last = np.maximum.accumulate(np.where(calm[:-1].all(axis=0), self.last_alarm, rows))
        self.last_alarm = int(last[-1])
        calm &= rows - last > REACH
        if first == 0:
            calm[:, : self.settings.warmup_rows] = False
        calm[-1] &= rows % CHUNK == CHUNK - 1  # the drift moves slowly: a chunk counts as one value
        for start in range(0, size, CHUNK):
            self.tails.learn(stats[:, start : start + CHUNK], calm[:, start : start + CHUNK])
        if self.count % self._period() == 0:
            self.tails.fit(self.probability)

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in self.NUMBERS}
        return numbers | {name: pack(getattr(self, name)) for name in self.ARRAYS} | {"tails": self.tails.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.NUMBERS:
            setattr(self, name, state[name])
        for name in self.ARRAYS:
            setattr(self, name, unpack(state[name]))
        self.tails.load_state_dict(state["tails"])


def _by_value(blocks: Sequence[Block]) -> Floats:
    """(level, scale, top, noise, memory) of every value; of all at once where they are one block."""
    kinds = np.array([block[1:6] for block in blocks]).T
    return kinds if len(blocks) == 1 else np.repeat(kinds, [block.size for block in blocks], axis=1)
