"""One signal's detector: how surprising is each value, given the run's own past?

Values in, scores out; vectorised over the rows of a report. The baseline is fitted anew on an absolute grid of
observations, so any split of a stream into reports gives the same scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.detection.codec import pack, unpack
from monitor.detection.rows import Bools, Floats
from monitor.detection.settings import DetectionSettings

SPANS = (1, 2, 3, 5, 8, 16)
"""Lengths, in observations, over which evidence is added up."""
MEMORY = SPANS[-1] - 1


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    log: bool = False
    """Judge the logarithm (a norm's noise is multiplicative)."""
    two_sided: bool = False
    """A collapse counts too."""
    falling: bool = False
    """The trend may only be followed downwards: a rise is never learnt as normal."""


SIGNALS = {
    "loss": Signal("loss", falling=True),
    "grad_norm": Signal("grad_norm", log=True),
    "log_z": Signal("log_z", two_sided=True),
}


@dataclass(frozen=True, slots=True)
class Scores:
    """Columns over N rows; a row without an observation has z = evidence = 0.

    `z`: residual in robust standard deviations, positive for trouble; `evidence`: 1.0 is the alarm threshold;
    `expected` and `scale` in the signal's own unit; `broken`: present and not finite.
    """

    z: Floats
    evidence: Floats
    expected: Floats
    scale: Floats
    broken: Bools


class SignalDetector:
    """See the module. State is a few hundred numbers: `state_dict` / `load_state_dict` are exact."""

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        self.signal, self.settings = signal, settings
        self.restart()

    def restart(self) -> None:
        self.count = 0  # finite observations since the start (or the last restart)
        self.next_fit = 4
        self.window = np.empty(0)  # the last values that may teach
        self.ages = np.empty(0)  # their observation numbers
        self.block = np.empty(0)  # values since the last fit
        self.recent = np.empty(0)  # the last MEMORY z, clipped
        self.tail = np.empty(0)  # |z| of the past, for the heaviness of the run's own tail
        self.level, self.slope, self.noise, self.origin = 0.0, 0.0, np.inf, 0.0
        self.heavy = 1.0
        self.silent = 0  # observations since one last taught
        self.floor = 0.0  # the noise before the last declared change
        self.declared = False  # restarted by a declared event: the noise of before still serves

    def shift(self) -> None:
        """A declared change: learn the new level from the rows that follow; noise and tail are kept as a floor.

        Until the first fit only a gross rise over the old level is an alarm.
        """
        if self.count < self.settings.warmup_rows:
            return
        last = self.level + self.slope * (self.count - self.origin)
        self.level, self.slope, self.origin = last, 0.0, 0.0
        self.floor = self.noise
        self.noise = max(self.noise, 0.05 * (1.0 if self.signal.log else abs(last)))
        self.window, self.ages, self.block, self.recent = (np.empty(0) for _ in range(4))
        self.count, self.next_fit, self.declared = 0, 4, True

    def feed(self, values: Floats, present: Bools) -> Scores:
        finite = present & np.isfinite(values)
        size = len(values)
        z, evidence = np.zeros(size), np.zeros(size)
        expected, scale = np.full(size, np.nan), np.full(size, np.nan)
        where = np.flatnonzero(finite)
        x = values[where]
        if self.signal.log:
            x = np.log(np.maximum(x, 1e-30))
        start = 0
        while start < len(x):
            part = slice(start, start + self.next_fit - self.count)
            at = where[part]
            z[at], evidence[at], expected[at], scale[at] = self._score(x[part])
            start += len(at)
        return Scores(z, evidence, expected, scale, present & ~finite)

    def _score(self, x: Floats) -> tuple[Any, ...]:
        """Judge observations inside one block, then fit when the block is full."""
        expected = self.level + self.slope * (self.count + np.arange(len(x)) - self.origin)
        scale = self.noise * self.heavy
        z = (x - expected) / scale
        if self.signal.two_sided:
            z = np.abs(z)
        clipped = np.clip(z, -3.0, 60.0)
        single = np.concatenate([self.recent, clipped])
        several = np.minimum(single, 6.0)
        evidence = np.zeros(len(x))
        fitted = self.count - len(self.block)
        young = 1.0 + 2.0 * max(0.0, 1.0 - fitted / (3.0 * self.settings.warmup_rows))
        for span in SPANS:
            known = single if span == 1 else several
            if len(known) < span:
                continue
            total = known.copy()
            for lag in range(1, span):
                total[lag:] += known[:-lag]
            total[: span - 1] = 0.0
            limit = young * (11.0 if span == 1 else 8.5)
            np.maximum(evidence, total[len(self.recent) :] / (np.sqrt(span) * limit), out=evidence)
        if fitted < self.settings.warmup_rows and not self.declared:
            evidence[:] = 0.0
        self.recent = single[-MEMORY:]
        self.block = np.concatenate([self.block, x])
        self.count += len(x)
        noise: Any = scale
        if self.signal.log:
            expected = np.exp(expected)
            noise = noise * expected
        if self.count == self.next_fit:
            self._fit()
        return z, evidence, expected, np.broadcast_to(noise, (len(z),))

    def _fit(self) -> None:
        ages = np.arange(self.count - len(self.block), self.count, dtype=np.float64)
        z = (self.block - self.level - self.slope * (ages - self.origin)) / (self.noise * self.heavy)
        if self.signal.two_sided:
            z = np.abs(z)
        teaches = z < 5.0 if self.count > self.settings.warmup_rows else np.ones(len(z), dtype=bool)
        self.silent = 0 if teaches.sum() > len(z) // 4 else self.silent + len(z)
        if self.silent >= self.settings.adopt_rows:  # the level has held: it is the new normal
            self.silent, teaches = 0, np.ones(len(z), dtype=bool)
            self.window, self.ages = np.empty(0), np.empty(0)
        keep = self.settings.window_rows
        self.window = np.concatenate([self.window, self.block[teaches]])[-keep:]
        self.ages = np.concatenate([self.ages, ages[teaches]])[-keep:]
        if self.count > self.settings.warmup_rows:
            self.tail = np.concatenate([self.tail, self.heavy * z[z < 30.0]])[-self.settings.tail_rows :]
        self.block = np.empty(0)
        half = len(self.window) // 2
        early, late = float(np.median(self.window[:half])), float(np.median(self.window[half:]))
        mid_early, mid_late = float(np.mean(self.ages[:half])), float(np.mean(self.ages[half:]))
        slope = (late - early) / (mid_late - mid_early)
        if self.signal.falling:
            slope = min(slope, 0.0)
        residual = self.window - late - slope * (self.ages - mid_late)
        self.slope, self.origin, self.level = slope * 0.5, mid_late, late
        spread = 1.4826 * float(np.median(np.abs(residual)))
        step = 1.4826 * float(np.median(np.abs(np.diff(self.window)))) / 1.414
        young = self.floor if self.count < self.settings.warmup_rows else 0.0
        floor = 1e-3 if self.signal.log else 1e-4 * max(abs(late), 1e-3)
        distinct = np.diff(np.sort(self.window))
        quantum = float(distinct[distinct > 0].min()) if (distinct > 0).any() else 0.0
        self.noise = max(spread, step, floor, young, 0.5 * quantum if spread == 0 else 0.0)
        if len(self.tail) >= 64:
            self.heavy = max(1.0, float(np.quantile(self.tail, 0.995)) / 3.0)
        self.next_fit = self.count + int(min(max(self.count // 4, 4), self.settings.block_rows))

    def state_dict(self) -> dict[str, Any]:
        arrays = {name: pack(getattr(self, name)) for name in ("window", "ages", "block", "recent", "tail")}
        numbers = {
            name: getattr(self, name)
            for name in ("count", "next_fit", "level", "slope", "origin", "heavy", "floor", "declared", "silent")
        }
        return arrays | numbers | {"noise": None if np.isinf(self.noise) else self.noise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("window", "ages", "block", "recent", "tail"):
            setattr(self, name, unpack(state[name]))
        for name in ("count", "next_fit", "level", "slope", "origin", "heavy", "floor", "declared", "silent"):
            setattr(self, name, state[name])
        self.noise = np.inf if state["noise"] is None else state["noise"]


def detectors(settings: DetectionSettings, names: Sequence[str] = tuple(SIGNALS)) -> dict[str, SignalDetector]:
    return {name: SignalDetector(SIGNALS[name], settings) for name in names}
