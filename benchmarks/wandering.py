"""Losses whose level wanders although nothing is wrong, and losses that really rise: long synthetic runs of ROWS rows.

A plateau wanders with the data and with the optimiser. Whoever judges a rise by the noise of single steps takes every
such wave for a divergence. All sizes are in noises, the standard deviation of the loss from step to step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from monitor.detection.rows import Floats

ROWS = 10_000
NOISE = 0.05
"""Nats."""
RISE_STEP = 6000
"""Where a true rise begins."""

Random = np.random.Generator
Make = Callable[[Random], Floats]
"""The level of a run of ROWS rows, in noises."""


@dataclass(frozen=True, slots=True)
class WanderingSuite:
    """Healthy losses: every incident is a false one, and every action."""

    name: str
    level: Make
    residual: Make = lambda random: random.standard_normal(ROWS)
    noise: float = NOISE
    trend: float = 0.0
    """Nats by which the loss falls over the run, ever more slowly."""

    def loss(self, seed: int) -> Floats:
        random = np.random.default_rng(seed)
        falling = self.trend * np.exp(-np.arange(ROWS) / (0.3 * ROWS))
        return 2.5 + falling + self.noise * (self.level(random) + self.residual(random))


@dataclass(frozen=True, slots=True)
class RiseSuite:
    """A loss that rises by `height` noises over `rows` rows from RISE_STEP on, and stays there."""

    rows: int
    height: float
    level: Make

    @property
    def name(self) -> str:
        what = "flat" if self.level is flat else "wandering"
        return f"{what}, {self.height:g} noises in {self.rows:,} rows"

    def loss(self, seed: int) -> Floats:
        random = np.random.default_rng(seed)
        ramp = np.clip((np.arange(ROWS) - RISE_STEP) / self.rows, 0, 1) * self.height
        return 2.5 + NOISE * (self.level(random) + ramp + random.standard_normal(ROWS))


def flat(random: Random) -> Floats:
    return np.zeros(ROWS)


def autoregressive(size: float, steps: float) -> Make:
    """AR(1) of standard deviation `size` whose correlation falls to 1/e in `steps` rows."""

    def level(random: Random) -> Floats:
        r = float(np.exp(-1 / steps))
        shocks = random.standard_normal(ROWS) * size * np.sqrt(1 - r * r)
        out, last = np.empty(ROWS), size * random.standard_normal()
        for k, shock in enumerate(shocks):
            out[k] = last = r * last + shock
        return out

    return level


def random_walk(size: float, steps: float) -> Make:
    """A random walk that moves by `size` over `steps` rows."""
    return lambda random: np.cumsum(random.standard_normal(ROWS)) * size / np.sqrt(steps)


def sources(size: float, rows: int) -> Make:
    """Data sources in blocks of about `rows` rows, each with a level of its own within `size` of the mean."""

    def level(random: Random) -> Floats:
        bounds = np.cumsum(random.integers(rows // 2, 2 * rows, ROWS // rows * 3))
        out, offsets = np.zeros(ROWS), random.uniform(-size, size, 6)
        for start, end in pairwise([0, *bounds.tolist()]):
            out[start:end] = offsets[random.integers(6)]
        return out

    return level


def periodic(size: float, rows: int) -> Make:
    return lambda random: size * np.sin(2 * np.pi * (np.arange(ROWS) / rows + random.uniform()))


def data_order(rises: int, nats: tuple[float, float], noise: float) -> Make:
    """Rises of 1 to 30 rows each, such as hard documents in a row."""

    def level(random: Random) -> Floats:
        out = np.zeros(ROWS)
        for start in random.integers(0, ROWS, rises):
            out[start : start + random.integers(1, 31)] = random.uniform(*nats) / noise
        return out

    return level


def skewed(random: Random) -> Floats:
    """Of unit variance and skew 1.1; autocorrelation 0.44, 0.25, 0.15 and 0.11 at lags 1, 2, 5 and 10."""
    slow, fast = autoregressive(0.447, 16.2)(random), autoregressive(0.894, 0.83)(random)
    values: Floats = np.exp(0.34 * (slow + fast))
    standard: Floats = (values - values.mean()) / values.std()
    return standard


def heavy(random: Random) -> Floats:
    """A batch 20 times smaller than usual: few sequences, so the noise is skewed too."""
    noise: Floats = (random.gamma(4.0, size=ROWS) - 4.0) / 2.0
    return noise


WANDERING = (
    WanderingSuite("plateau, white noise", flat),
    WanderingSuite("plateau, skewed and autocorrelated noise", flat, skewed, noise=0.25),
    *(
        WanderingSuite(f"AR(1) of {size:g} over {steps:,}, {word}", autoregressive(size, steps), trend=trend)
        for word, trend in (("plateau", 0.0), ("falling", 1.5))
        for size, steps in ((0.1, 100), (0.3, 300), (1.0, 100), (1.0, 1000), (1.0, 5000))
    ),
    *(
        WanderingSuite(f"random walk of {size:g} over {steps:,}, {word}", random_walk(size, steps), trend=trend)
        for word, trend in (("plateau", 0.0), ("falling", 1.5))
        for size, steps in ((0.1, 100), (1.0, 1000), (1.0, 100))
    ),
    WanderingSuite("data sources in blocks of 300", sources(1.0, 300)),
    WanderingSuite("data sources in blocks of 2,000", sources(1.0, 2000)),
    WanderingSuite("period of 200", periodic(1.0, 200)),
    WanderingSuite("period of 2,500", periodic(1.0, 2500)),
    WanderingSuite("300 rises by data order", data_order(300, (0.3, 0.5), 0.25), noise=0.25),
    WanderingSuite("batch 20 times smaller", flat, heavy, noise=20**0.5 * NOISE),
)

RISES = tuple(
    RiseSuite(rows, height, level)
    for level in (flat, autoregressive(0.3, 300))
    for rows, height in ((60, 10.0), (200, 10.0), (600, 10.0), (2000, 10.0), (4000, 10.0), (4000, 20.0))
)
