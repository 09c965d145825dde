"""Results of the trainer's lab (`python -m trainer lab .. --json`), by sweep; lab_results_file.py reads them. Pure.

Through losses at several amounts of compute there is a power law.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from dashboard import formatting
from lossguard.vocabulary import wording

MAX_WITH_DECIMALS = 1e6
MAX_DECIMALS = 12


class RoundedEstimate(wording.Estimate):
    """A mean with its standard error."""

    __slots__ = ()

    def __str__(self) -> str:
        """Format with two significant digits of the error, as in "1.953 +- 0.012"."""
        if not math.isfinite(self.mean):
            return "not finite"
        if not 0.0 < self.standard_error < math.inf or abs(self.mean) >= MAX_WITH_DECIMALS:
            return formatting.number(self.mean)
        decimals = min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(self.standard_error))))
        return f"{self.mean:.{decimals}f} \N{PLUS-MINUS SIGN} {self.standard_error:.{decimals}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRun:
    """A run of a recipe. Losses in nats per token."""

    recipe: str
    seed: int
    held_out_loss: float
    held_out_loss_se: float
    """Over documents; NaN if it is not known."""
    bits_per_byte: float | None
    bits_per_character: float | None
    """Bits per character; None if the data is not text."""
    log_z: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRun:
    width: int
    seed: int
    parameters: int
    tokens: int
    held_out_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstableRun:
    """A run of the unstable recipe with a safeguard. What a jump is stands in trainer/lab/jumps.py."""

    safeguard: str
    seed: int
    final_loss: float
    num_jumps: int
    steps_lost: int
    largest_jump: float | None
    """The largest peak relative to the level before; None without a jump."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRun:
    """A model that was trained in one way on a source with known probabilities. Nats per token."""

    trained_with: str
    seed: int
    loss_floor: float
    held_out_loss: float
    true_prefixes: float
    """KL(source || model) after prefixes of the source."""
    own_prefixes: float
    """KL(source || model) after prefixes of the model."""
    bias: float
    true_inputs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureRun:
    """The predictions of a model, sampled at one temperature."""

    temperature: float
    seed: int
    loss: float
    entropy: float
    hits: float
    """Mean probability that a sample is the true token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Absolute derivatives of losses by the logit of the true token, at one probability of it."""

    probability: float
    cross_entropy: float
    squared_error_one_wrong: float
    squared_error_spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRun:
    """The predictions of a model that was trained with label smoothing. Nats per token."""

    smoothing: float
    seed: int
    loss: float
    error: float
    """The expected calibration error."""
    surest_loss: float
    loss_floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AbilityRun:
    """The loss of one kind of token at the beginning and at the end of a training, in nats per token."""

    kind: str
    seed: int
    first_loss: float
    last_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabResults:
    """Results by sweep, in the order of the file."""

    key: str
    """Unique for this content; figures are cached by it."""
    switches: list[SwitchRun] = field(default_factory=list)
    scaling: list[ScalingRun] = field(default_factory=list)
    unstable: list[UnstableRun] = field(default_factory=list)
    exposure: list[ExposureRun] = field(default_factory=list)
    temperature: list[TemperatureRun] = field(default_factory=list)
    gradients: list[Gradients] = field(default_factory=list)
    calibration: list[CalibrationRun] = field(default_factory=list)
    abilities: list[AbilityRun] = field(default_factory=list)


Run = TypeVar("Run")


def groups(runs: Sequence[Run], name: str) -> dict[Any, list[Run]]:
    """The runs by the value of a field, in order of appearance."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(getattr(run, name), []).append(run)
    return found


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
