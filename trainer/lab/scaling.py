"""Loss against compute: five sizes of one model, each trained on 20 tokens per parameter, and a power law through them.

python -m trainer lab --scaling [--seed 1] [--seeds 3] [--quick] [--json] [--plot FILE.svg]
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from lossguard import Estimate
from trainer.config import load_recipe
from trainer.lab.plot import Axis, PlottedCurve, svg
from trainer.lab.results import print_table, wide_console
from trainer.lab.training import train_unrecorded
from trainer.model import GPT, flops_per_token
from trainer.throughput import CHINCHILLA_RATIO

RECIPE = "drill"
WIDTHS = (16, 24, 32, 40, 48)
"""Widths of the five models, in channels; all have two layers."""
NUM_SEEDS = 3
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


def scaling_runs(
    seeds: Iterable[int],
    folder: Path,
    *,
    tokens_per_parameter: float = CHINCHILLA_RATIO,
    overrides: Sequence[str] = (),
    widths: Sequence[int] = WIDTHS,
    report: Callable[[str], None] = lambda sentence: None,
) -> Iterator[ScalingRun]:
    """Train every width with every seed. Raises UsageError and Stopped."""
    for seed in seeds:
        for width in widths:
            yield _train(width, seed, folder, tokens_per_parameter, overrides, report)


def _train(
    width: int,
    seed: int,
    folder: Path,
    tokens_per_parameter: float,
    overrides: Sequence[str],
    report: Callable[[str], None],
) -> ScalingRun:
    recipe = load_recipe(RECIPE, [f"seed={seed}", *overrides, f"model.width={width}"])
    parameters = GPT(recipe.model).num_parameters()
    steps = math.ceil(tokens_per_parameter * parameters / recipe.tokens_per_step)
    report(f"width {width}, {parameters} parameters, seed {seed}, {steps} steps")
    _, rows = train_unrecorded(replace(recipe, steps=steps), folder)
    tokens = steps * recipe.tokens_per_step
    flops = float(tokens * flops_per_token(recipe.model))
    return ScalingRun(width, seed, parameters, tokens, flops, rows[-1]["held_out_loss"])


@dataclass(frozen=True, slots=True)
class Scaling:
    """The sweep and the laws through it."""

    compute: tuple[float, ...]
    """6ND of each size, rising."""
    losses: tuple[Estimate, ...]
    law: PowerLaw
    """Through the mean losses of all sizes."""
    exponent: Estimate
    """Exponent of the laws through the losses of single seeds."""
    law_of_smaller: PowerLaw
    """Through all sizes but the largest."""

    @property
    def predicted(self) -> float:
        """The loss of the largest size, as the smaller ones predict it."""
        return self.law_of_smaller(self.compute[-1])


def summarise(runs: Sequence[ScalingRun]) -> Scaling:
    """Summarise the runs of at least three sizes, each with the same seeds."""
    widths = sorted({run.width for run in runs})
    by_width = [[run for run in runs if run.width == width] for width in widths]
    compute = tuple(own[0].flops_6nd for own in by_width)
    losses = tuple(Estimate.of(run.held_out_loss for run in own) for own in by_width)
    means = [each.mean for each in losses]
    by_seed = [[run.held_out_loss for run in runs if run.seed == seed] for seed in sorted({run.seed for run in runs})]
    exponents = [fit_power_law(compute, own).exponent for own in by_seed]
    law, of_smaller = fit_power_law(compute, means), fit_power_law(compute[:-1], means[:-1])
    return Scaling(compute, losses, law, Estimate.of(exponents), of_smaller)


def show_scaling(runs: Sequence[ScalingRun], console: Console | None = None) -> None:
    """Print one row per size, and the fitted law."""
    console = console or wide_console()
    scaling = summarise(runs)
    rows = []
    first = sorted({run.width: run for run in runs}.values(), key=lambda run: run.width)
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
    scaling = summarise(runs)
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
