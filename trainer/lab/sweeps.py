"""The sweeps of the lab: what each of them runs, and how its results are shown.

python -m trainer lab [NAME ..] | --exposure | --unstable | --scaling | --temperature | --calibration | --abilities |
    --gradients
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from trainer.lab import abilities, exposure, gradients, predictions, scaling, switches, unstable
from trainer.lab.training import Lab


@dataclass(slots=True, frozen=True)
class Sweep:
    """One sweep. Its results are dataclasses."""

    run: Callable[[Lab], Iterable[Any]]
    """Raises UsageError and Stopped."""
    show: Callable[[Sequence[Any], Console], None]
    plot: Callable[[Sequence[Any]], str] | None = None
    """The plot as the text of an SVG file; None if there is none."""


SWEEPS = {
    "switches": Sweep(switches.try_switches, switches.show_switches),
    "exposure": Sweep(exposure.compare_ways, exposure.show_exposure),
    "unstable": Sweep(unstable.unstable_runs, unstable.show_unstable, unstable.plot_unstable),
    "scaling": Sweep(scaling.scaling_runs, scaling.show_scaling, scaling.plot_scaling),
    "temperature": Sweep(predictions.samplings, predictions.show_samplings),
    "calibration": Sweep(predictions.calibrations, predictions.show_calibrations),
    "abilities": Sweep(abilities.ability_runs, abilities.show_abilities),
    "gradients": Sweep(gradients.gradients, gradients.show_gradients, gradients.plot_gradients),
}
