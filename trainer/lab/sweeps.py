"""The sweeps of the lab: what each of them runs, and how its results are shown.

python -m trainer lab --unstable | --scaling | --temperature | --gradients
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.errors import UsageError
from trainer.lab import gradients, scaling, temperature, unstable
from trainer.throughput import CHINCHILLA_RATIO

QUICK_SEEDS = 2


@dataclass(kw_only=True, slots=True, frozen=True)
class SweepOptions:
    """What the command line says about a sweep."""

    seed: int = 1
    """The first one."""
    num_seeds: int | None = None
    """None: as many as the sweep has by default, or 2 of a quick one."""
    steps: int | None = None
    """Of each run; None for the sweep's own number."""
    quick: bool = False
    """Fewer seeds and steps."""
    overrides: Sequence[str] = field(default=())
    """Of all recipes, as in `--set`."""

    def seeds(self, usual: int) -> range:
        return range(self.seed, self.seed + (self.num_seeds or (QUICK_SEEDS if self.quick else usual)))


Report = Callable[[str], None]
"""Takes a sentence about progress."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sweep:
    """One sweep. Its results have `to_dict`."""

    run: Callable[[SweepOptions, Path, Report], Sequence[Any]]
    """Raises UsageError and Stopped."""
    show: Callable[[Sequence[Any], Console], None]
    plot: Callable[[Sequence[Any]], str] | None = None
    """The plot as the text of an SVG file; None if there is none."""


def _unstable(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    steps = options.steps or (unstable.QUICK_STEPS if options.quick else unstable.STEPS)
    seeds = options.seeds(unstable.NUM_SEEDS)
    return [*unstable.unstable_runs(seeds, folder, steps=steps, overrides=options.overrides, report=report)]


def _scaling(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    if options.steps is not None:
        raise UsageError("--steps cannot be used with --scaling: the steps follow from the tokens per parameter.")
    ratio = scaling.QUICK_RATIO if options.quick else CHINCHILLA_RATIO
    seeds = options.seeds(scaling.NUM_SEEDS)
    return [
        *scaling.scaling_runs(seeds, folder, tokens_per_parameter=ratio, overrides=options.overrides, report=report)
    ]


def _temperature(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    steps = options.steps or (temperature.QUICK_STEPS if options.quick else temperature.STEPS)
    overrides = [*options.overrides, f"steps={steps}"]
    return [
        *temperature.sampling_runs(options.seeds(temperature.NUM_SEEDS), folder, overrides=overrides, report=report)
    ]


def _gradients(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    return [gradients.gradients_at(probability) for probability in gradients.PROBABILITIES]


SWEEPS = {
    "unstable": Sweep(run=_unstable, show=unstable.show_unstable, plot=unstable.plot_unstable),
    "scaling": Sweep(run=_scaling, show=scaling.show_scaling, plot=scaling.plot_scaling),
    "temperature": Sweep(run=_temperature, show=temperature.show_sampling),
    "gradients": Sweep(run=_gradients, show=gradients.show_gradients, plot=gradients.plot_gradients),
}
