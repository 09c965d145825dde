"""Synthetic runs with injected faults: what must be found, what must not, and what should be done about it.

The healthy run is a falling loss with normal noise, a log-normal grad norm and a steady log Z. Every suite changes it
in one way at step FAULT. Long runs of ROWS rows follow, whose level wanders although nothing is wrong, or really rises:
a plateau wanders with the data and with the optimiser, and whoever judges a rise by the noise of single steps takes
every such wave for a divergence. Their sizes are in noises, the standard deviation of the loss from step to step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from monitor.detection import Rows
from monitor.detection.rows import Floats, Ints

STEPS = 1600
FAULT = 1000


@dataclass(slots=True)
class Run:
    """A healthy run of STEPS rows, to be changed in place. `noise`: standard deviation of the loss in nats."""

    noise: float
    steps: Ints
    loss: Floats
    grad_norm: Floats
    log_z: Floats
    lr: Floats
    declared: list[tuple[int, str]]

    @classmethod
    def healthy(cls, seed: int, noise: float) -> "Run":
        random = np.random.default_rng(seed)
        steps = np.arange(STEPS, dtype=np.int64)
        loss = 2.2 + 1.5 * np.exp(-steps / 500) + noise * random.standard_normal(STEPS)
        grad_norm = 0.3 * np.exp(0.1 * random.standard_normal(STEPS))
        log_z = 8.0 + 0.05 * random.standard_normal(STEPS)
        return cls(noise, steps, loss, grad_norm, log_z, np.full(STEPS, 3e-4), [])

    def rows(self) -> Rows:
        return Rows.of(
            self.steps.astype(np.int64), loss=self.loss, grad_norm=self.grad_norm, log_z=self.log_z, lr=self.lr
        )

    def after(self, step: int = FAULT) -> Ints:
        """Steps since `step`, negative before it."""
        return self.steps - step


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    inject: Callable[[Run], None]
    found: bool
    """Whether there is something to find at FAULT; otherwise every incident is a false one."""
    actions: tuple[str, ...] = ("none",)
    """What may be done about it."""
    within: int = 12
    """Steps in which it must be found."""


def bad_batch(run: Run) -> None:
    run.loss[FAULT] += 25 * run.noise
    run.grad_norm[FAULT] *= 3


def recovers(run: Run) -> None:
    run.loss += np.where(run.after() >= 0, 1.5 * np.exp(-np.maximum(run.after(), 0) / 8), 0)
    run.grad_norm *= np.where((run.after() >= -1) & (run.after() < 20), 8.0, 1.0)


def stays(run: Run) -> None:
    run.loss += np.where(run.after() >= 0, 1.5, 0)


def climbs(run: Run) -> None:
    run.loss += np.clip(0.25 * (run.after() + 1), 0, 4)
    run.grad_norm *= np.where(run.after() >= -3, 5.0, 1.0)


def drift(run: Run) -> None:
    run.loss[FAULT:] = run.loss[FAULT:] - 1.5 * np.exp(-run.steps[FAULT:] / 500) + 1.5 * np.exp(-FAULT / 500)
    run.loss += np.maximum(run.after(), 0) * run.noise / 10


def nan_once(run: Run) -> None:
    run.loss[FAULT] = np.nan


def nan_for_ever(run: Run) -> None:
    run.loss[FAULT:] = np.nan


def inf_grad(run: Run) -> None:
    run.grad_norm[FAULT] = np.inf


def log_z_collapse(run: Run) -> None:
    run.log_z -= np.clip(0.3 * (run.after() + 1), 0, 3)


def quantised(run: Run) -> None:
    run.loss[:] = np.round(run.loss / (2 * run.noise)) * 2 * run.noise


def quantised_spike(run: Run) -> None:
    stays(run)
    quantised(run)


def collapses(run: Run) -> None:
    """Forty batches of one repeated byte."""
    run.loss[FAULT : FAULT + 40] = 0.001
    run.grad_norm[FAULT : FAULT + 40] *= 0.02


def diverges_for_good(run: Run) -> None:
    run.loss += np.clip(0.2 * (run.after() + 1), 0, 3)


def log_z_settles(run: Run) -> None:
    run.log_z[:] = 10.0 - 4.5 * np.exp(-run.steps / 40) - np.exp(-run.steps / 400) + 0.01 * (run.log_z - 8.0)


def shift(run: Run) -> None:
    run.loss[FAULT:] += 0.4


def declared_shift(run: Run) -> None:
    shift(run)
    run.declared.append((FAULT, "data_mix"))


def spike_after_declared_shift(run: Run) -> None:
    run.loss[FAULT - 20 :] += 0.4
    run.declared.append((FAULT - 20, "data_mix"))
    stays(run)


def batch_ramp(run: Run) -> None:
    trend = 2.2 + 1.5 * np.exp(-run.steps / 500)
    for step, factor in ((FAULT, 0.5), (FAULT + 200, 2.0)):
        run.loss[step:] = trend[step:] + factor * (run.loss[step:] - trend[step:])
        run.declared.append((step, "batch_size"))


def lr_drop(run: Run) -> None:
    run.lr[FAULT:] /= 10
    run.loss -= np.where(run.after() >= 0, 0.2 * (1 - np.exp(-np.maximum(run.after(), 0) / 50)), 0)


def lr_rise(run: Run) -> None:
    run.lr[FAULT:] *= 3
    run.loss += np.where(run.after() >= 0, 0.1, 0)


def resume_bump(run: Run) -> None:
    run.loss += np.where(run.after() >= 0, 0.15 * np.exp(-np.maximum(run.after(), 0) / 50), 0)
    run.declared.append((FAULT, "resume"))


def nothing(run: Run) -> None:
    """A healthy run."""


SUITES = (
    Suite("healthy", nothing, found=False),
    Suite("one bad batch", bad_batch, found=False),
    Suite("spike that recovers", recovers, found=True),
    Suite("spike that does not", stays, found=True, actions=("rollback",)),
    Suite("climb without end", climbs, found=True, actions=("rollback",)),
    Suite("slow drift, noise/10 a step", drift, found=True, actions=("rollback",), within=100),
    Suite("NaN for one step", nan_once, found=True, actions=("rollback",), within=0),
    Suite("NaN for ever", nan_for_ever, found=True, actions=("rollback",), within=0),
    Suite("infinite grad norm", inf_grad, found=True, actions=("rollback",), within=0),
    Suite("log Z collapse", log_z_collapse, found=True),
    Suite("log Z finds its level", log_z_settles, found=False),
    Suite("loss collapse of 40 rows", collapses, found=True),
    Suite("divergence that stays", diverges_for_good, found=True, actions=("rollback",)),
    Suite("quantised, healthy", quantised, found=False),
    Suite("quantised, spike that does not", quantised_spike, found=True, actions=("rollback",)),
    Suite("level shift, undeclared", shift, found=True, actions=("rollback",)),
    Suite("level shift, declared", declared_shift, found=False),
    Suite("spike 20 steps after a declared shift", spike_after_declared_shift, found=True, actions=("rollback",)),
    Suite("batch ramp, declared", batch_ramp, found=False),
    Suite("LR drop, seen in lr", lr_drop, found=False),
    Suite("LR rise with a shift, seen in lr", lr_rise, found=False),
    Suite("resume bump, declared", resume_bump, found=False),
)


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
