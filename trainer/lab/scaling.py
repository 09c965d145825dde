"""Loss against compute: five sizes of one model, each trained on 20 tokens per parameter, and a power law through them.

python -m trainer lab --scaling [--seed 1] [--seeds 3] [--quick] [--json] [--plot FILE.svg]
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console

from lossguard import Estimate
from trainer.display import grouped, print_table
from trainer.errors import UsageError
from trainer.lab.plot import Axis, PlottedCurve, svg
from trainer.lab.training import Lab
from trainer.measurement.throughput import CHINCHILLA_RATIO
from trainer.model import GPT, flops_per_token

RECIPE = "drill"
WIDTHS = (16, 24, 32, 40, 48)
"""Widths of the five models, in channels; all have two layers."""
QUICK_RATIO = 3.0
"""Tokens per parameter."""


@dataclass(frozen=True, slots=True)
class ScalingRun:
    """One run of the sweep."""

    width: int
    seed: int
    parameters: int
    tokens: int
    flops: float
    """Counted from the matrix products."""
    held_out_loss: float
    """Nats per token, at the end."""

    @property
    def flops_6nd(self) -> float:
        return 6.0 * self.parameters * self.tokens


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """loss = coefficient * compute ** -exponent."""

    coefficient: float
    exponent: float

    def __call__(self, compute: float) -> float:
        return self.coefficient * math.pow(compute, -self.exponent)


def fit_power_law(compute: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """By least squares of the logarithms.

    No constant term: over two decades of compute, an irreducible loss looks like a smaller exponent. NaN if a loss is.
    """
    if not np.isfinite(losses).all():
        return PowerLaw(math.nan, math.nan)
    slope, intercept = np.polyfit(np.log(compute), np.log(losses), 1)
    return PowerLaw(math.exp(float(intercept)), -float(slope))


def scaling_runs(lab: Lab) -> Iterator[ScalingRun]:
    """Train every width with every seed. Raises UsageError and Stopped."""
    if lab.steps is not None:
        raise UsageError("--steps cannot be used with --scaling: the steps follow from the tokens per parameter.")
    ratio = QUICK_RATIO if lab.quick else CHINCHILLA_RATIO
    for seed in lab.seeds():
        for width in WIDTHS:
            recipe = lab.recipe(RECIPE, seed, f"model.width={width}")
            parameters = GPT(recipe.model).num_parameters()
            recipe = replace(recipe, steps=math.ceil(ratio * parameters / recipe.tokens_per_step))
            _, rows = lab.train(recipe, f"width {width}, {parameters} parameters")
            tokens = recipe.steps * recipe.tokens_per_step
            flops = float(tokens * flops_per_token(recipe.model))
            yield ScalingRun(width, seed, parameters, tokens, flops, rows[-1]["held_out_loss"])


class Scaling:
    """The runs of at least three sizes, each with the same seeds, and the laws through them."""

    def __init__(self, runs: Sequence[ScalingRun]) -> None:
        by_width = [own for _, own in sorted(grouped(runs, "width").items())]
        self.compute = [own[0].flops_6nd for own in by_width]
        """6ND of each size, rising."""
        self.losses = [Estimate.of(run.held_out_loss for run in own) for own in by_width]
        means = [each.mean for each in self.losses]
        self.law = fit_power_law(self.compute, means)
        """Through the mean losses of all sizes."""
        by_seed = [[run.held_out_loss for run in own] for own in grouped(runs, "seed").values()]
        self.exponent = Estimate.of(fit_power_law(self.compute, losses).exponent for losses in by_seed)
        """Exponent of the laws through the losses of single seeds."""
        self.law_of_smaller = fit_power_law(self.compute[:-1], means[:-1])
        """Through all sizes but the largest."""
        self.predicted = self.law_of_smaller(self.compute[-1])
        """The loss of the largest size, as the smaller ones predict it."""


def show_scaling(runs: Sequence[ScalingRun], console: Console) -> None:
    """Print one row per size, and the fitted law."""
    scaling = Scaling(runs)
    rows = []
    first = [own[-1] for _, own in sorted(grouped(runs, "width").items())]
    for run, compute, loss in zip(first, scaling.compute, scaling.losses, strict=True):
        numbers = (f"{run.width}", f"{run.parameters:,}", f"{run.tokens:,}", f"{compute:.2e}", f"{run.flops:.2e}")
        rows.append((*numbers, str(loss), f"{scaling.law(compute):.3f}"))
    print_table(console, ("width", "parameters", "tokens", "FLOPs (6ND)", "FLOPs", "held-out loss", "law"), rows)
    console.print(
        f"loss = {scaling.law.coefficient:.3g} * C^-{scaling.law.exponent:.4f}, C in FLOPs (6ND); "
        f"exponent over the seeds {scaling.exponent}"
    )
    largest = scaling.losses[-1]
    console.print(
        f"A law through the {len(first) - 1} smaller sizes predicts {scaling.predicted:.3f} for the largest, "
        f"which reached {largest}."
    )


def plot_scaling(runs: Sequence[ScalingRun]) -> str:
    """The held-out losses with standard errors and the law, as an SVG file."""
    scaling = Scaling(runs)
    grid = np.geomspace(scaling.compute[0], scaling.compute[-1], 40).tolist()
    errors = [each.standard_error for each in scaling.losses]
    means = [each.mean for each in scaling.losses]
    curves = [
        PlottedCurve(name="held-out loss", x=scaling.compute, y=means, errors=errors, is_line=False),
        PlottedCurve(name="fitted law", x=grid, y=[scaling.law(compute) for compute in grid]),
        PlottedCurve(name="law of the smaller", x=grid, y=[scaling.law_of_smaller(compute) for compute in grid]),
    ]
    x_axis = Axis(title="training FLOPs (6ND)", is_log=True)
    return svg("Loss against compute, five sizes", curves, x_axis, Axis(title="nats per token", is_log=True))
