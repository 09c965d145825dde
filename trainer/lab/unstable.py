"""Safeguards against spikes: the recipe `unstable`, without one and with one at a time, over several seeds.

python -m trainer lab --unstable [--seed 1] [--seeds 5] [--steps 1600] [--quick] [--json] [--plot FILE.svg]
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from lossguard import Estimate
from trainer.display import grouped, means, print_table
from trainer.drill.strategies import SkipStep
from trainer.lab.jumps import Jump, find_jumps, means_of_steps
from trainer.lab.plot import Axis, PlottedCurve, svg
from trainer.lab.training import Lab

RECIPE = "unstable"
STEPS = 1600
NUM_SEEDS = 5
FINAL_SHARE = 0.25
"""Share of the steps, at the end of a run, over which its final loss is averaged."""
MAX_PLOTTED_POINTS = 400


@dataclass(frozen=True, slots=True)
class Safeguard:
    """One change of the unstable recipe."""

    name: str
    overrides: tuple[str, ...] = ()
    skips_outliers: bool = False
    """True if the optimizer skips the step where loss or gradient norm is 6 sd above the last 128 (`SkipStep`)."""


SAFEGUARDS = (
    Safeguard("none"),
    Safeguard("clipping at 1", ("optimizer.clip_norm=1.0",)),
    Safeguard("z-loss 1e-4", ("optimizer.z_weight=1e-4",)),
    Safeguard("QK-norm", ("model.qk_norm=true",)),
    Safeguard("beta2 0.95", ("optimizer.beta2=0.95",)),
    Safeguard("learning rate 3e-3", ("optimizer.lr=3e-3",)),
    Safeguard("warm-up 400 steps", ("optimizer.warmup_steps=400",)),
    Safeguard("skip outlying steps", skips_outliers=True),
)


@dataclass(frozen=True, slots=True)
class UnstableRun:
    """One run of the sweep. Losses in nats per token."""

    safeguard: str
    seed: int
    final_loss: float
    """The mean of the last quarter of the steps."""
    jumps: list[Jump]
    curve: list[float]
    """The loss in at most 400 intervals of equal length: the largest mean of 5 steps in each."""
    interval: int
    """Steps of an interval."""


def unstable_runs(lab: Lab) -> Iterator[UnstableRun]:
    """Train every safeguard with every seed. Raises UsageError and Stopped."""
    for seed in lab.seeds(NUM_SEEDS):
        for safeguard in SAFEGUARDS:
            recipe = lab.recipe(RECIPE, seed, *safeguard.overrides, steps=STEPS)
            accepts = SkipStep() if safeguard.skips_outliers else None
            _, rows = lab.train(recipe, safeguard.name, accepts=accepts)
            losses = [row["loss"] for row in rows]
            final = statistics.fmean(losses[-max(1, round(FINAL_SHARE * len(losses))) :])
            smooth, interval = means_of_steps(losses), -(-len(losses) // MAX_PLOTTED_POINTS)
            curve = [max(smooth[start : start + interval]) for start in range(0, len(smooth), interval)]
            yield UnstableRun(safeguard.name, seed, final, find_jumps(losses), curve, interval)


def show_unstable(runs: Sequence[UnstableRun], console: Console) -> None:
    """Print one row per safeguard: means over the seeds, with standard errors."""
    rows = []
    for name, own in grouped(runs, "safeguard").items():
        largest = max((jump.size for run in own for jump in run.jumps), default=None)
        jumps = [len(run.jumps) for run in own]
        lost = Estimate.of(sum(jump.num_steps for jump in run.jumps) for run in own)
        shown = (Estimate.of(jumps), "-" if largest is None else f"{largest:.1f} x", lost)
        rows.append((name, ", ".join(map(str, jumps)), *map(str, shown), *means(own, "final_loss")))
    print_table(console, ("safeguard", "jumps by seed", "jumps", "largest jump", "steps lost", "final loss"), rows)
    seeds = ", ".join(map(str, grouped(runs, "seed")))
    console.print(f"Mean +- standard error over the seeds {seeds}; a jump is defined in trainer/lab/jumps.py.")


def plot_unstable(runs: Sequence[UnstableRun]) -> str:
    """The losses of the first seed, as an SVG file: the largest mean of 5 steps in each of at most 400 intervals."""
    first = [run for run in runs if run.seed == runs[0].seed]
    title = f"Training loss of the recipe {RECIPE}, seed {runs[0].seed}, one safeguard at a time"
    curves = [
        PlottedCurve(name=run.safeguard, x=[run.interval * number for number in range(len(run.curve))], y=run.curve)
        for run in first
    ]
    return svg(title, curves, Axis(title="step"), Axis(title="nats per token", is_log=True))
