"""Messy runs with planted spikes, and twins of the same noise without: long synthetic runs of ROWS rows.

The noise of a real run is heavy-tailed, autocorrelated and of changing size, and its level wanders. How many spikes are
found says little unless it stands beside what is reported where there is none: whatever is reported in a twin is false.
Sizes are in noises, 1.4826 times the median absolute deviation of the loss from row to row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from zlib import crc32

import numpy as np

from monitor.detection import Rows
from monitor.detection.rows import Floats

ROWS = 10_000
NOISE = 0.1
"""Nats."""
NORMS = ("none", "alone", "moving")
"""Kinds of gradient norms: none, unrelated to the loss, or moving with hard batches and spikes."""
EVERY = 700
"""Rows from spike to spike, on average."""
SMOOTHING = 0.9
RISE_ROW = 6000
"""Row at which a rise for good begins."""

Random = np.random.Generator
Noise = Callable[[Random], Floats]


def normal(random: Random) -> Floats:
    return random.standard_normal(ROWS)


def student(degrees: float, random: Random) -> Floats:
    return random.standard_t(degrees, ROWS)


def ar(r: float, random: Random, draw: Noise = normal) -> Floats:
    shocks, out, last = draw(random) * np.sqrt(1 - r * r), np.empty(ROWS), 0.0
    for k, shock in enumerate(shocks.tolist()):
        out[k] = last = r * last + shock
    return out


def unit(values: Floats) -> Floats:
    centred = values - np.median(values)
    scaled: Floats = centred / (1.4826 * np.median(np.abs(centred)))
    return scaled


def hard(share: float, random: Random) -> Floats:
    """This share of the batches are hard, of 5 to 15 noises."""
    return (random.random(ROWS) < share) * random.uniform(5, 15, ROWS)


def wander(size: float, steps: float, random: Random) -> Floats:
    return size * ar(float(np.exp(-1 / steps)), random)


def learning_rate() -> Floats:
    """Warm-up, plateau, a drop to a third at 60%, decay from 80% on; as a fraction of the largest."""
    t = np.arange(ROWS) / ROWS
    rate: Floats = np.minimum(1.0, t / 0.05) * np.where(t > 0.6, 1 / 3, 1.0) * np.where(t > 0.8, (1 - t) / 0.2, 1.0)
    return rate


def noise_by_lr() -> Floats:
    return 0.3 + 0.7 * learning_rate()


def all_at_once(random: Random) -> Floats:
    heavy = ar(0.3, random, partial(student, 4)) * np.exp(wander(0.3, 300, random))
    return unit(heavy + wander(1.0, 50, random)) + hard(0.005, random)


def dips(random: Random) -> Floats:
    """Easy data: 10 stretches of 6 to 24 rows, 3 to 7 noises below the level."""
    out = np.zeros(ROWS)
    for start in random.integers(300, ROWS - 100, 10):
        out[start : start + random.integers(6, 25)] = -random.uniform(3, 7)
    return out


def hard_runs(random: Random) -> Floats:
    """Hard batches in a row, by the order of the data: 10 runs of 2 or 3 rows of 6 to 12 noises."""
    out = np.zeros(ROWS)
    for start in random.integers(100, ROWS - 100, 10):
        out[start : start + random.integers(2, 4)] = random.uniform(6, 12)
    return out


HARD_RUNS = "runs of hard batches"
"""Nothing tells them from spikes: of these twins only actions count."""
KINDS: dict[str, Noise] = {
    "normal": normal,
    "Student t, 3": lambda g: unit(student(3, g)),
    "log-normal 0.7": lambda g: unit(np.exp(0.7 * normal(g))),
    "1% hard batches": lambda g: normal(g) + hard(0.01, g),
    "AR 0.5": partial(ar, 0.5),
    "AR 0.7": partial(ar, 0.7),
    "AR 0.9": partial(ar, 0.9),
    "AR 0.5, Student t": lambda g: unit(ar(0.5, g, partial(student, 4))),
    "AR 0.5, 1% hard batches": lambda g: ar(0.5, g) + hard(0.01, g),
    "AR 0.7, skewed": lambda g: unit(np.exp(0.5 * ar(0.7, g))),
    "level wanders by 1 over 100 rows": lambda g: normal(g) + wander(1.0, 100, g),
    "level wanders by 2 over 30 rows": lambda g: unit(student(5, g)) + wander(2.0, 30, g),
    "follows the learning rate": lambda g: unit(student(6, g)) * noise_by_lr(),
    "quantised": lambda g: np.round(normal(g)),
    "every 10th step, log-normal 0.3": lambda g: unit(np.exp(0.3 * normal(g))),
    "volatile": lambda g: unit(normal(g) * np.exp(wander(0.6, 200, g))),
    "all at once": all_at_once,
    "average of normal": normal,
    "average of Student t": lambda g: unit(student(4, g)),
    "dips": lambda g: normal(g) + dips(g),
    HARD_RUNS: lambda g: normal(g) + hard_runs(g),
}
"""By name; `average`: what is logged is a moving average, of the spikes too."""


@dataclass(frozen=True, slots=True)
class Spike:
    """Height in standard deviations of the noise, and length in rows."""

    at: int
    rows: int
    height: float
    shape: str
    lead: int
    """Rows by which a moving gradient norm comes first."""

    @classmethod
    def draw(cls, at: int, random: Random) -> "Spike":
        height, rows = np.exp(random.uniform(np.log(6), np.log(30))), np.exp(random.uniform(np.log(2), np.log(40)))
        shape = str(random.choice(["step", "triangle", "decay"]))
        lead = int(random.integers(1, 4)) if random.random() < 0.5 else 0
        return cls(at, int(np.round(rows)), float(height), shape, lead)

    def excess(self) -> Floats:
        k = np.arange(self.rows)
        if self.shape == "step":
            return np.full(self.rows, self.height)
        if self.shape == "decay":
            return self.height * np.exp(-2.0 * k / self.rows)
        top = max(self.rows // 3, 1)
        up, down = (k + 1) / top, (self.rows - k) / max(self.rows - top, 1)
        triangle: Floats = self.height * np.minimum(up, down).clip(0, 1)
        return triangle


@dataclass(frozen=True)
class MessyRun:
    """A run with noise of this kind; without `spikes` it is the twin. `rise`: noises by which its level rises for good,
    after which no spike comes. `stretch`: factor of the spikes' lengths."""

    kind: str
    norm: str
    seed: int
    spikes: bool = False
    every: int = EVERY
    rise: float = 0.0
    stretch: float = 1.0

    @property
    def stride(self) -> int:
        """Steps from row to row."""
        return 10 if self.kind.startswith("every 10th") else 1

    @cached_property
    def planted(self) -> list[Spike]:
        end = RISE_ROW - EVERY if self.rise else ROWS
        return [spike for spike in self._draw()[1] if spike.at < end] if self.spikes else []

    def _draw(self) -> tuple[Random, list[Spike]]:
        random = np.random.default_rng([self.seed, 77, crc32(self.kind.encode()), NORMS.index(self.norm)])
        planted, at = list[Spike](), 300 + int(random.integers(200))
        while at < ROWS - 100:
            spike = Spike.draw(at, random)
            planted.append(replace(spike, rows=max(2, round(spike.rows * self.stretch))))
            at += int(random.integers(self.every // 2, self.every * 3 // 2))
        return random, planted

    def rows(self) -> Rows:
        random = np.random.default_rng([self.seed, crc32(self.kind.encode()), NORMS.index(self.norm)])
        noise, t = KINDS[self.kind](random), np.arange(ROWS)
        by_lr, averaged = self.kind == "follows the learning rate", self.kind.startswith("average")
        scale = noise_by_lr() if by_lr else np.ones(ROWS)
        excess, near = np.zeros(ROWS), np.zeros(ROWS)
        for spike in self.planted:
            excess[spike.at : spike.at + spike.rows] += spike.excess() * scale[spike.at]
            near[spike.at - spike.lead : spike.at + spike.rows] = 1.0
        loss = 2.5 + 2.0 * np.exp(-t / 1500) + NOISE * (noise + excess)
        if averaged:
            for k in range(1, ROWS):
                loss[k] = SMOOTHING * loss[k - 1] + (1 - SMOOTHING) * loss[k]
        # an average has a third of the noise or less, and shows a spike as large as that
        loss[RISE_ROW:] += NOISE * self.rise * ((1 - SMOOTHING) if averaged else scale[RISE_ROW])
        if self.kind == "quantised":
            loss = np.round(loss / NOISE) * NOISE
        columns = {"loss": loss}
        if by_lr:
            columns["lr"] = 3e-4 * np.maximum(learning_rate(), 1e-3)
        if self.norm != "none":
            columns["grad_norm"] = self._norm(random, noise, excess, near)
        return Rows.of((t * self.stride).astype(np.int64), **columns)

    def _norm(self, random: Random, noise: Floats, excess: Floats, near: Floats) -> Floats:
        is_light = self.kind in ("normal", "quantised")
        log_norm = 0.15 * (normal(random) if is_light else student(4, random))
        if self.norm == "moving":
            leap = self._draw()[0].uniform(0.5, 1.5)
            log_norm = log_norm + 0.12 * np.clip(noise, 0, 12) + np.log1p(0.15 * excess) + near * leap
        return 0.5 * np.exp(log_norm)
