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

from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.detection.codec import pack, unpack
from monitor.detection.robust import REACH, SPANS, mean, median, spread, statistics
from monitor.detection.rows import Bools, Floats, Ints
from monitor.detection.settings import DetectionSettings
from monitor.detection.tails import Tails

FLOORS = np.array([6.5, 5.0, 5.5, 6.5, 8.0, 5.0])
"""The least threshold of each span, and of the drift, in standard deviations: less is not worth waking anybody for."""
PRIOR = 9.0
PRIORS = np.array([PRIOR, PRIOR, PRIOR, PRIOR, PRIOR, 5.0])
"""Thresholds of a run whose tail is not known yet."""
HUGE = 1e100  # nothing that trains gets there: as good as infinite, and sums of squares below it do not overflow
NEVER = 1e300  # a lowest level that is not known yet
CHUNK = 64  # observations that teach the tails at once
OFTEN = 4 * CHUNK  # observations between two fits of the tails, in a run that has more
BLOCKS = ((2, 1), (4, 2), (CHUNK, 4))  # observations between two fits of the level, below so many observations
BLOCK = 16  # and later
LEVEL_ROWS = 12  # the level is the median of so many values
KEPT = 128  # values and residuals behind the noise
ADDS_Z = 2.0  # a row below this is no alarm, whatever came before it
SMOOTHED = 0.6  # correlation of neighbours from which the values are taken for smoothed ones
GRACE = 8  # values after a declared change that are not enough to judge by
TEACH_Z = 4.0  # a residual above this does not teach the level
SPARSE = 5
"""In rows so many steps apart a real spike may be one row: there the size against the tail decides. In closer rows a
single one is a hard batch, whatever its size, unless the next row is out of band too."""


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    log: bool = False
    """Judge the logarithm (a norm's noise is multiplicative)."""
    two_sided: bool = False
    """A collapse counts too."""
    drifts: bool = False
    """A slow rise is a divergence."""
    floor: float = 1e-9
    """The least noise, in the judged unit."""
    caution: float = 1.0
    """Multiplies the thresholds: a signal that only foretells trouble must be surer than the loss itself."""
    gross: float = np.inf
    """A rise (in the judged unit) that is trouble even before anything is known of the noise."""
    gross_part: float = 0.0
    """The same as a part of the level; the larger of the two counts."""


SIGNALS = {
    # A rise by 1 nat and by 30% multiplies the perplexity by e at least: no warm-up makes such a step.
    "loss": Signal("loss", drifts=True, gross=1.0, gross_part=0.3),
    "grad_norm": Signal("grad_norm", log=True, floor=0.1, caution=2.0, gross=float(np.log(30.0))),
    "log_z": Signal("log_z", two_sided=True, caution=3.0),
}


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


class SignalDetector:
    """See the module. State is a few hundred numbers: `state_dict` / `load_state_dict` are exact."""

    NUMBERS = (
        *("count", "level", "noise", "old_noise", "low", "low_step", "drift", "silent", "drifting", "last_alarm"),
        *("declared", "sparse", "memory", "last_z"),
    )
    ARRAYS = ("window", "residuals", "block", "z", "tamed")

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        self.signal, self.settings = signal, settings
        # one in so many rows for each sum; the drift moves so slowly that a chunk of it counts as one value
        self.probability = settings.false_alarms_per_10k / 1e4 * np.array([1.0] * len(SPANS) + [CHUNK / 4])
        self.tails = Tails(FLOORS, PRIORS)
        self.noise = self.old_noise = 0.0  # robust standard deviation; the one before the last declared change
        self.level = 0.0
        self.sparse = self.declared = False
        self._forget()

    def _forget(self) -> None:
        self.count = 0  # finite observations since the start, or since the last declared change
        self.window = np.empty(0)  # the last values that may teach
        self.residuals = np.empty(0)  # the last residuals that may teach
        self.block = np.empty(0)  # values since the last fit of the level
        self.z = np.zeros(REACH)  # z of this chunk, after the REACH before it
        self.tamed = np.full(REACH, np.nan)  # the last REACH values with what is out of band cut off
        self.low, self.low_step = NEVER, 0  # the lowest level so far
        self.drift = 0.0  # how far above it the level is now, in noises
        self.memory, self.last_z = 0.0, 0.0  # correlation of neighbouring residuals; the last z
        self.silent = self.drifting = 0  # observations since one last taught; for which the drift is an alarm
        self.last_alarm = -CHUNK  # the observation of the last alarm

    def shift(self) -> None:
        """A declared change: the level is learnt anew from the rows that follow; noise and tails stay.

        Until a few rows are known only a gross rise over the old level is an alarm. A change while the one
        before it settles (a chunk) changes nothing: declared at every row, seven in eight are watched all the same.
        """
        if self._settled() and not (self.declared and self.count < CHUNK):
            self.old_noise, self.declared = self.noise, True
            self._forget()

    def _settled(self) -> bool:
        """Enough is known for more than gross alarms (constant within a block)."""
        return self.count - len(self.block) >= (GRACE if self.declared else self.settings.warmup_rows)

    def feed(self, values: Floats, present: Bools, steps: Ints, gaps: Ints) -> Scores:
        """Judge N rows; `gaps`: steps since the row before."""
        finite = present & (np.abs(values) < HUGE)
        where = np.flatnonzero(finite)
        x = values[where]
        if self.signal.log:
            x = np.log(np.maximum(x, 1e-30))
        table = np.zeros((7, len(values)))  # as in Scores
        table[4:6] = np.nan
        broken = present & ~finite
        start = 0
        for end in sorted({*np.cumsum(finite)[broken].tolist(), len(x)}):
            while start < end:
                at = where[start : min(start + CHUNK - self.count % CHUNK, end)]
                table[:, at] = self._chunk(x[start : start + len(at)], steps[at], gaps[at])
                start += len(at)
            if self.count > 0:
                table[4:6, broken & (np.cumsum(finite) == end)] = [[self.level], [self._scale()]]
        if self.signal.log:
            table[4] = np.exp(table[4])
            table[5] *= table[4]
        z, evidence, single, drift, expected, scale, low_step = table
        return Scores(z, evidence, single, drift, expected, scale, low_step, broken)

    def _chunk(self, x: Floats, steps: Ints, gaps: Ints) -> Floats:
        """Judge values inside one chunk. Returns the table of `feed` for them."""
        size = len(x)
        table = np.empty((7, size))
        start = 0
        while start < size:
            block = next((block for below, block in BLOCKS if self.count < below), BLOCK)
            part = slice(start, min(start + block - self.count % block, size))
            self._block(x[part], table[:, part])
            if self.count % block == 0:
                self.sparse = bool(gaps[part.stop - 1] >= SPARSE)
                self._fit(int(steps[part.stop - 1]))
            start = part.stop
        stats = np.empty((len(SPANS) + 1, size))
        statistics(self.z[-size - REACH :], stats[:-1])
        ratios = stats[:-1] / self.tails.thresholds[:-1, None]
        table[2] = np.maximum(ratios[0], 0.0)
        ratios[0] *= gaps >= SPARSE
        # the sums of a spike outlast it: an alarm needs a row that adds to them
        table[1] = np.where(table[0] >= ADDS_Z, np.maximum(ratios.max(axis=0), 0.0) / self.signal.caution, 0.0)
        if self.count % CHUNK == 0:
            self._learn(stats)
        return table

    def _block(self, x: Floats, table: Floats) -> None:
        """Residuals of values that one level serves."""
        scale = self._scale()
        residual = x - self.level if self.count > 0 else np.zeros(len(x))
        table[3] = self._drifts(x, scale) / self.tails.thresholds[-1]
        table[0] = np.abs(residual / scale) if self.signal.two_sided else residual / scale
        self.z = np.concatenate([self.z, np.minimum(np.maximum(self._news(table[0]), -4.0), 60.0)])
        table[4], table[5] = self.level if self.count > 0 else x, scale
        table[6] = self.low_step
        self.block = np.concatenate([self.block, x])
        self.count += len(x)

    def _news(self, z: Floats) -> Floats:
        """z without what the value before it foretold (Box and Jenkins 1970); of unit variance like z."""
        last, self.last_z = self.last_z, float(z[-1])
        if not self.memory:
            return z
        before = np.concatenate([[last], z[:-1]])
        news: Floats = (z - self.memory * before) / np.sqrt(1.0 - self.memory**2)
        return news

    def _scale(self) -> float:
        """Before enough is known, an alarm takes a gross rise."""
        return self.noise if self._settled() else max(self.noise, self._gross() / PRIOR)

    def _gross(self) -> float:
        return max(self.signal.gross, self.signal.gross_part * abs(self.level))

    def _drifts(self, x: Floats, scale: float) -> Floats | float:
        """How far the mean of the last 12 values lies above the lowest level, in noises."""
        if not self.signal.drifts:
            return 0.0
        known = np.concatenate([self.tamed, np.minimum(x, self.level + TEACH_Z * scale)])
        self.tamed = known[-REACH:]
        if self.low == NEVER:
            return 0.0
        inert = np.sqrt((1.0 + self.memory) / (1.0 - self.memory))  # means of correlated values vary more
        drifts = (mean(known) - self.low) / (self.noise * inert)
        drifts[np.isnan(drifts)] = 0.0
        self.drift = float(drifts[-1])
        return np.asarray(drifts)

    def _fit(self, step: int) -> None:
        """Learn level and noise from the block that is full, which ends at `step`."""
        settled, x = self._settled(), self.block
        scale = self._scale()
        residual = x - self.level if self.count > len(x) else np.zeros(len(x))
        teaches = (np.abs(residual) if self.signal.two_sided else residual) < TEACH_Z * scale
        self.silent = 0 if 4 * np.count_nonzero(teaches) > len(x) else self.silent + len(x)
        if self.silent >= self.settings.adopt_rows:
            self.silent, self.low, teaches = 0, NEVER, np.ones(len(x), dtype=bool)
            self.window = np.empty(0)
        if settled:
            self.residuals = np.concatenate([self.residuals, residual[teaches]])[-KEPT:]
        self.window = np.concatenate([self.window, x[teaches]])[-KEPT:]
        self.block = np.empty(0)
        if len(self.window):
            self.level = median(self.window[-LEVEL_ROWS:])
            centred = self.residuals - median(self.residuals) if len(self.residuals) >= 32 else None
            self.noise = self._noise(centred)
            self.memory = self._memory(centred)
            self._lowest(step)

    def _noise(self, centred: Floats | None) -> float:
        """From the residuals of the past, `centred` where they are enough, and from the differences of neighbours."""
        steps = self.window[1:] - self.window[:-1]
        jitter = spread(steps) / np.sqrt(2.0) if len(steps) else 0.0
        if centred is not None:
            noise = max(spread(centred), 0.7 * jitter)
        else:
            recent = self.window[-2 * LEVEL_ROWS :]
            noise = max(spread(recent - median(recent)), jitter if self._settled() else 0.0)
        if jitter == 0.0 and (steps != 0).any():  # quantised: half of the neighbours are equal
            noise = max(noise, 0.5 * float(np.abs(steps[steps != 0]).min()))
        young = self.old_noise if self.count < CHUNK else 0.0
        return max(noise, young, self.signal.floor, 1e-9 if self.signal.log else 1e-4 * abs(self.level))

    def _memory(self, centred: Floats | None) -> float:
        """Correlation of neighbouring residuals where it is so strong that the loss must have been smoothed, else 0."""
        if self.signal.two_sided or centred is None or len(centred) < KEPT // 2:
            return 0.0
        memory = float((centred[1:] * centred[:-1]).sum() / max((centred * centred).sum(), 1e-300))
        return min(memory, 0.97) if memory >= SMOOTHED else 0.0

    def _lowest(self, step: int) -> None:
        if not self.signal.drifts or not self._settled():
            return
        if self.level <= self.low:
            self.low, self.low_step = self.level, step
        self.drifting = self.drifting + BLOCK if self.drift >= self.tails.thresholds[-1] else 0
        if self.drifting >= self.settings.adopt_rows:
            self.low, self.low_step, self.drifting = self.level, step, 0

    def _learn(self, stats: Floats) -> None:
        """Teach the tails this chunk, without alarms and their aftermath."""
        if stats.shape[1] < CHUNK:  # the chunk came in several reports: its statistics are worked out again
            stats = np.empty((len(SPANS) + 1, CHUNK))
            statistics(self.z[-CHUNK - REACH :], stats[:-1])
        stats[-1] = self.drift
        limits = self.tails.thresholds.copy()
        if not self.sparse:
            limits[0] = np.inf  # hard batches teach
        calm = stats < limits[:, None]
        rows = np.arange(self.count - CHUNK, self.count)
        alarms = np.where(calm[:-1].all(axis=0), self.last_alarm, rows)
        last = np.maximum.accumulate(alarms)
        self.last_alarm = int(last[-1])
        calm &= rows - last > REACH
        if self.count <= CHUNK:
            calm[:, : self.settings.warmup_rows] = False
        calm[-1, :-1] = False
        self.tails.learn(stats, calm)
        if self.count <= OFTEN or self.count % OFTEN == 0:
            self.tails.fit(self.probability)
        self.z = self.z[-REACH:]

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in self.NUMBERS}
        return numbers | {name: pack(getattr(self, name)) for name in self.ARRAYS} | {"tails": self.tails.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.NUMBERS:
            setattr(self, name, state[name])
        for name in self.ARRAYS:
            setattr(self, name, unpack(state[name]))
        self.tails.load_state_dict(state["tails"])
