"""The sweeps of the lab: what each of them runs, and how its results are shown.

python -m trainer lab [NAME ..] | --exposure | --unstable | --scaling | --temperature | --calibration | --abilities |
    --gradients
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import load_recipe
from trainer.errors import UsageError
from trainer.lab import abilities, calibration, exposure, gradients, scaling, temperature, unstable
from trainer.lab.switches import SWITCHES, LabResult, show_lab, show_means, try_switch
from trainer.throughput import CHINCHILLA_RATIO

QUICK_SEEDS = 2
QUICK_SHARE = 5
"""A quick sweep has a fifth of the steps."""


OWN_FIELDS = {
    "seed": "give --seed, the first of --seeds",
    "steps": "give --steps",
    "name": "runs are compared by the names of their recipes",
}
"""Fields of a recipe that the lab sets, and what to do instead."""


@dataclass(kw_only=True, slots=True, frozen=True)
class SweepOptions:
    """The settings of a sweep from the command line."""

    seed: int = 1
    """The first one."""
    num_seeds: int | None = None
    """None: as many as the sweep has by default, or 2 of a quick one."""
    steps: int | None = None
    """Steps of each run; None for the sweep's own number."""
    quick: bool = False
    """Fewer seeds and steps."""
    overrides: Sequence[str] = field(default=())
    """Overrides of all recipes, as in `--set`."""
    recipes: Sequence[str] = SWITCHES
    """Recipes that the sweep `switches` compares."""

    def __post_init__(self) -> None:
        """Raises UsageError for an override that would make different runs the same one, or give them one name."""
        for override in self.overrides:
            name = override.partition("=")[0].strip()
            if name in OWN_FIELDS:
                raise UsageError(f"--set {override} cannot be used in the lab: {OWN_FIELDS[name]}.")

    def seeds(self, usual: int) -> range:
        """`usual`: how many, if the command line does not say."""
        return range(self.seed, self.seed + (self.num_seeds or (QUICK_SEEDS if self.quick else usual)))

    def num_steps(self, usual: int) -> int:
        """`usual`: of a run that is not quick, if the command line does not say."""
        return self.steps or (usual // QUICK_SHARE if self.quick else usual)


Report = Callable[[str], None]
"""Takes a sentence about progress."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sweep:
    """One sweep. Its results are dataclasses."""

    run: Callable[[SweepOptions, Path, Report], Sequence[Any]]
    """Raises UsageError and Stopped."""
    show: Callable[[Sequence[Any]], None]
    plot: Callable[[Sequence[Any]], str] | None = None
    """The plot as the text of an SVG file; None if there is none."""


def _switches(options: SweepOptions, folder: Path, report: Report) -> Sequence[LabResult]:
    overrides = [*options.overrides, f"steps={options.num_steps(500)}"]
    seeds = range(options.seed, options.seed + (options.num_seeds or 1))
    recipes = [load_recipe(name, [*overrides, f"seed={seed}"]) for seed in seeds for name in options.recipes]
    results = []
    for recipe in recipes:
        report(f"{recipe.name}, seed {recipe.seed}, {recipe.steps} steps")
        results.append(try_switch(recipe, folder))
    return results


def _show_switches(results: Sequence[LabResult]) -> None:
    (show_lab if len({result.seed for result in results}) == 1 else show_means)(results)


def _exposure(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    overrides = [*options.overrides, f"steps={options.num_steps(500)}"]
    return [*exposure.compare_ways(load_recipe("markov", overrides), options.seeds(3), folder, report)]


def _unstable(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    seeds, steps = options.seeds(unstable.NUM_SEEDS), options.num_steps(unstable.STEPS)
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
    overrides = [*options.overrides, f"steps={options.num_steps(temperature.STEPS)}"]
    return [
        *temperature.sampling_runs(options.seeds(temperature.NUM_SEEDS), folder, overrides=overrides, report=report)
    ]


def _calibration(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    overrides = [*options.overrides, f"steps={options.num_steps(calibration.STEPS)}"]
    seeds = options.seeds(calibration.NUM_SEEDS)
    return [*calibration.calibration_runs(seeds, folder, overrides=overrides, report=report)]


def _abilities(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    overrides = [*options.overrides, f"steps={options.num_steps(abilities.STEPS)}"]
    return [*abilities.ability_runs(options.seeds(abilities.NUM_SEEDS), folder, overrides=overrides, report=report)]


def _gradients(options: SweepOptions, folder: Path, report: Report) -> Sequence[Any]:
    if options.overrides or options.num_seeds or options.steps:
        raise UsageError("--gradients trains nothing: leave out --set, --data, --seeds and --steps.")
    return [gradients.gradients_at(probability) for probability in gradients.PROBABILITIES]


SWEEPS = {
    "switches": Sweep(run=_switches, show=_show_switches),
    "exposure": Sweep(run=_exposure, show=exposure.show_exposure),
    "unstable": Sweep(run=_unstable, show=unstable.show_unstable, plot=unstable.plot_unstable),
    "scaling": Sweep(run=_scaling, show=scaling.show_scaling, plot=scaling.plot_scaling),
    "temperature": Sweep(run=_temperature, show=temperature.show_sampling),
    "calibration": Sweep(run=_calibration, show=calibration.show_calibration),
    "abilities": Sweep(run=_abilities, show=abilities.show_abilities),
    "gradients": Sweep(run=_gradients, show=gradients.show_gradients, plot=gradients.plot_gradients),
}
