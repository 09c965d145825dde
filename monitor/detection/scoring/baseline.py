"""What a signal is like when nothing is wrong: its level, its noise, and how far neighbours go together.

The level is the median of the last few values that may teach; the noise the robust standard deviation of the residuals
of the past. Both are fitted on an absolute grid of observations, so any split of a stream into reports learns the same.
"""

from collections.abc import Iterator
from math import sqrt
from typing import NamedTuple

import numpy as np

from monitor.detection.rows import Floats
from monitor.detection.scoring.robust import median, spread
from monitor.detection.scoring.signals import Signal
from monitor.detection.settings import DetectionSettings

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
        while len(x):
            blocks = self._many(x) or [self._one(x)]
            yield from blocks
            x = x[sum(block.size for block in blocks) :]

    def _one(self, x: Floats) -> Block:
        """The next block, or what there is of it."""
        size = next((size for below, size in BLOCKS if self.count < below), BLOCK)
        part = x[: size - self.count % size]
        level, scale = self.level if self.count > 0 else np.nan, self._scale()
        served = (level, scale, self.level + TEACH_Z * scale, self.noise, self.memory)
        self.block = np.concatenate([self.block, part])
        self.count += len(part)
        full = self.count % size == 0
        adopted = full and self._fit(scale)
        after = self.level if full and self._settled() and len(self.window) else None
        return Block(len(part), *served, adopted, after)

    def _fit(self, scale: float) -> bool:
        """Learn level and noise from the block that is full: whether what was out of band was adopted."""
        settled, x = self._settled(), self.block
        residual = x - self.level if self.count > len(x) else np.zeros(len(x))
        teaches = self._away(residual) < TEACH_Z * scale
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
            levels = median(self.window[None, -LEVEL_ROWS:])
            noises, memories = self._noises(self.window[None], self.residuals[None], levels)
            self.level, self.noise, self.memory = levels.item(), noises.item(), memories.item()
        return adopted

    def _many(self, x: Floats) -> list[Block]:
        """The next full blocks, as far as all of their values teach: the fits of `_one`, all at once.

        Nothing where the past is short, or where the present fit lets expect that they do not all teach.
        """
        if len(self.block) or not self._settled() or min(len(self.window), len(self.residuals)) < KEPT:
            return []
        expected = self._away(x - self.level) < TEACH_Z * self.noise
        num = (len(x) if expected.all() else int(np.argmin(expected))) // BLOCK
        if num < 2:
            return []
        x = x[: num * BLOCK]
        windows = _trailing(self.window, x)
        levels = median(windows[:, -LEVEL_ROWS:])
        residual = x.reshape(num, BLOCK) - np.append(self.level, levels[:-1])[:, None]
        residuals = _trailing(self.residuals, residual.ravel())
        noises, memories = self._noises(windows, residuals, levels)
        scales = np.append(self.noise, noises[:-1])
        teaches = (self._away(residual) < TEACH_Z * scales[:, None]).all(axis=1)
        num = num if teaches.all() else int(np.argmin(teaches))
        blocks = []
        for level, noise, memory in zip(levels[:num].tolist(), noises.tolist(), memories.tolist(), strict=False):
            top = self.level + TEACH_Z * self.noise
            blocks.append(Block(BLOCK, self.level, self.noise, top, self.noise, self.memory, False, level))
            self.level, self.noise, self.memory = level, noise, memory
        if num:
            self.window, self.residuals = windows[num - 1].copy(), residuals[num - 1].copy()
            self.silent = 0
            self.count += num * BLOCK
        return blocks

    def _away(self, residual: Floats) -> Floats:
        return np.abs(residual) if self.signal.two_sided else residual

    def _noises(self, windows: Floats, residuals: Floats, levels: Floats) -> tuple[Floats, Floats]:
        """Noise and memory of each row: of residuals where they are enough, and of differences of neighbours."""
        steps = windows[:, 1:] - windows[:, :-1]
        jitter = spread(steps) / sqrt(2.0) if steps.size else np.zeros(1)
        memories = np.zeros(len(windows))
        if residuals.shape[1] >= 32:
            centred = residuals - median(residuals)[:, None]
            noises = np.maximum(spread(centred), 0.7 * jitter)
            if not self.signal.two_sided and residuals.shape[1] >= KEPT // 2:
                memories = _memories(centred)
        else:
            recent = windows[:, -2 * LEVEL_ROWS :]
            noises = spread(recent - median(recent)[:, None])
            noises = np.maximum(noises, jitter) if self._settled() else noises
        if not jitter.all() and steps.any():  # quantised: half of the neighbours are equal
            sizes = np.abs(steps)
            smallest = np.where(sizes > 0, sizes, np.inf).min(axis=1)
            noises = np.where((jitter == 0) & (smallest < np.inf), np.maximum(noises, 0.5 * smallest), noises)
        young = self.old_noise if self.count < CHUNK else 0.0
        floors = 1e-9 if self.signal.log else 1e-4 * np.abs(levels)
        return np.maximum(noises, np.maximum(floors, max(young, self.signal.floor))), memories


def _memories(centred: Floats) -> Floats:
    """Correlation of neighbouring residuals where it is so strong that the loss must have been smoothed, else 0."""
    memories = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / np.maximum((centred * centred).sum(axis=1), 1e-300)
    return np.where(memories >= SMOOTHED, np.minimum(memories, 0.97), 0.0)


def _trailing(past: Floats, values: Floats) -> Floats:
    """The KEPT values up to the end of each block."""
    ends = np.arange(BLOCK, len(values) + 1, BLOCK)
    trailing: Floats = np.concatenate([past, values])[ends[:, None] + np.arange(KEPT)]
    return trailing
