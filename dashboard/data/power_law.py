"""The power law through losses at several amounts of training compute. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dashboard.data.estimate import RoundedEstimate
from dashboard.data.lab_results import ScalingRun

MIN_SIZES = 3
"""A law through two sizes would fit whatever they are."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """loss = coefficient * compute ** -exponent."""

    coefficient: float
    exponent: float

    def __call__(self, compute: float) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.coefficient * np.power(compute, -self.exponent))


@dataclass(frozen=True, slots=True)
class Size:
    """The runs of one model size."""

    width: int
    parameters: int
    tokens: int
    losses: Sequence[ScalingRun]

    @property
    def flops(self) -> float:
        """6ND."""
        return 6.0 * self.parameters * self.tokens

    @property
    def loss(self) -> RoundedEstimate:
        """Held-out, over the seeds."""
        return RoundedEstimate.of(run.held_out_loss for run in self.losses)


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """Laws through the same sizes."""

    law: PowerLaw
    """Through the mean losses of all sizes."""
    law_of_smaller: PowerLaw
    """Through all sizes but the largest."""
    exponent: RoundedEstimate
    """Over the laws of single seeds; of the seeds that all sizes have."""


def sizes(runs: Sequence[ScalingRun]) -> list[Size]:
    """Return the sizes by rising compute. Runs of one width and different numbers of tokens are different sizes."""
    keys = {(run.width, run.parameters, run.tokens) for run in runs}
    found = [Size(*key, [run for run in runs if (run.width, run.parameters, run.tokens) == key]) for key in keys]
    return sorted(found, key=lambda size: (size.flops, size.width))


def fit(by_size: Sequence[Size]) -> FittedLaw | None:
    """Fit the law; None with fewer than three amounts of compute, or if a mean loss has no logarithm."""
    compute, means = [size.flops for size in by_size], [size.loss.mean for size in by_size]
    if len(set(compute)) < MIN_SIZES or not all(0.0 < loss < math.inf for loss in means):
        return None
    by_seed = [{run.seed: run.held_out_loss for run in size.losses} for size in by_size]
    seeds = sorted(set.intersection(*(set(losses) for losses in by_seed)))
    exponents = [_law(compute, [losses[seed] for losses in by_seed]).exponent for seed in seeds]
    return FittedLaw(_law(compute, means), _law(compute[:-1], means[:-1]), RoundedEstimate.of(exponents))


def _law(compute: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """Fit the logarithms by least squares; NaN if a loss is not above 0, or there is one amount of compute."""
    if min(losses) <= 0.0:
        return PowerLaw(math.nan, math.nan)
    x, y = np.log(compute), np.log(losses)
    variance = float(((x - x.mean()) ** 2).sum())
    if not variance > 0.0:
        return PowerLaw(math.nan, math.nan)
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / variance
    with np.errstate(over="ignore"):
        return PowerLaw(float(np.exp(y.mean() - slope * x.mean())), -slope)
