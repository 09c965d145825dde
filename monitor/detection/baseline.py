"""What a signal is like when nothing is wrong: its level, its noise, and how far neighbours go together.

The level is the median of the last few values that may teach; the noise the robust standard deviation of the residuals
of the past. Both are fitted on an absolute grid of observations, so any split of a stream into reports learns the same.
"""

from collections.abc import Iterator
from math import sqrt
from typing import NamedTuple

import numpy as np

from monitor.detection.robust import median, spread
from monitor.detection.rows import Floats
from monitor.detection.settings import DetectionSettings
from monitor.detection.signals import Signal

PRIOR = 9.0
CHUNK = 64  # observations that teach the tails at once
BLOCKS = ((2, 1), (4, 2), (CHUNK, 4))  # observations between two fits of the level, below so many observations
BLOCK = 16  # and later
LEVEL_ROWS = 12  # the level is the median of so many values
KEPT = 128  # values and residuals behind the noise
SMOOTHED = 0.6  # correlation of neighbours from which the values are taken for smoothed ones
GRACE = 8  # values after a declared change that are not enough to judge by
TEACH_Z = 4.0  # a residual above this does not teach the level


class Block(NamedTuple):
    """Values that one fit serves, and what it says of them."""

    size: int
    level: float
    """NaN where nothing is known yet: every value is at its level then."""
    scale: float
    top: float
    """What lies above it is out of band, and does not teach."""
    noise: float
    memory: float
    news: float
    """Standard deviation of what a value does not owe to the one before it, in those of a value."""
    adopted: bool
    """The fit that followed it took what had been out of band for so long for the new normal."""
    after: float | None
    """The level of that fit, where enough is known by then for more than gross alarms."""


class Baseline:
    """The state of the fits, and how values change it."""

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        self.signal, self.settings = signal, settings
        self.noise = self.old_noise = 0.0  # robust standard deviation; the one before the last declared change
        self.level = 0.0
        self.declared = False
        self._forget()

    def _forget(self) -> None:
        self.count = 0  # finite observations since the start, or since the last declared change
        self.window = np.empty(0)  # the last values that may teach
        self.residuals = np.empty(0)  # the last residuals that may teach
        self.block = np.empty(0)  # values since the last fit of the level
        self.memory = 0.0  # correlation of neighbouring residuals
        self.silent = 0  # observations since one last taught

    def _settled(self) -> bool:
        """Enough is known for more than gross alarms (constant within a block)."""
        return self.count - len(self.block) >= (GRACE if self.declared else self.settings.warmup_rows)

    def _scale(self) -> float:
        """Before enough is known, an alarm takes a gross rise."""
        return self.noise if self._settled() else max(self.noise, self._gross() / PRIOR)

    def _gross(self) -> float:
        return max(self.signal.gross, self.signal.gross_part * abs(self.level))

    def _blocks(self, x: Floats) -> Iterator[Block]:
        """Learn from values, block by block: what was known of each block before it taught anything."""
        start = 0
        while start < len(x):
            size = next((size for below, size in BLOCKS if self.count < below), BLOCK)
            part = x[start : start + size - self.count % size]
            level, scale = self.level if self.count > 0 else np.nan, self._scale()
            top, noise, memory = self.level + TEACH_Z * scale, self.noise, self.memory
            news = sqrt(1.0 - memory**2)
            self.block = np.concatenate([self.block, part])
            self.count += len(part)
            full = self.count % size == 0
            adopted = full and self._fit(scale)
            after = self.level if full and self._settled() and len(self.window) else None
            yield Block(len(part), level, scale, top, noise, memory, news, adopted, after)
            start += len(part)

    def _fit(self, scale: float) -> bool:
        """Learn level and noise from the block that is full: whether what was out of band was adopted."""
        settled, x = self._settled(), self.block
        residual = x - self.level if self.count > len(x) else np.zeros(len(x))
        teaches = (np.abs(residual) if self.signal.two_sided else residual) < TEACH_Z * scale
        num_teaching = np.count_nonzero(teaches)
        self.silent = 0 if 4 * num_teaching > len(x) else self.silent + len(x)
        adopted = self.silent >= self.settings.adopt_rows
        if adopted:
            self.silent, self.window = 0, np.empty(0)
        elif num_teaching < len(x):
            x, residual = x[teaches], residual[teaches]
        if settled:
            self.residuals = np.concatenate([self.residuals, residual])[-KEPT:]
        self.window = np.concatenate([self.window, x])[-KEPT:]
        self.block = np.empty(0)
        if len(self.window):
            self.level = median(self.window[-LEVEL_ROWS:])
            centred = self.residuals - median(self.residuals) if len(self.residuals) >= 32 else None
            self.noise = self._noise(centred)
            self.memory = self._memory(centred)
        return adopted

    def _noise(self, centred: Floats | None) -> float:
        """From the residuals of the past, `centred` where they are enough, and from the differences of neighbours."""
        steps = self.window[1:] - self.window[:-1]
        jitter = spread(steps) / sqrt(2.0) if len(steps) else 0.0
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
