"""Synthetic runs with injected faults: what must be found, what must not, and what should be done about it.

The healthy run is a falling loss with normal noise, a log-normal grad norm and a steady log Z. Every suite changes it
in one way at step FAULT.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
