"""What prevents spikes: the recipe `unstable`, without a safeguard and with one at a time, over several seeds.

python -m trainer lab --unstable [--seed 1] [--seeds 5] [--steps 1600] [--quick] [--json] [--plot FILE.svg]
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lossguard import Run, encode_number
from trainer.config import CheckpointConfig, Recipe, load_recipe
from trainer.drill.strategies import SkipStep
from trainer.errors import Stopped
from trainer.lab.estimate import Estimate
from trainer.lab.jumps import MEAN_STEPS, Jump, find_jumps
from trainer.lab.plot import Axis, Curve, svg
from trainer.train import Job, train

RECIPE = "unstable"
STEPS, QUICK_STEPS = 1600, 400
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
    """Whether the optimizer skips the step where loss or gradient norm is 6 sd above the last 128 (`SkipStep`)."""


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
    losses: Sequence[float]
    """Of every step."""

    @property
    def jumps(self) -> list[Jump]:
        return find_jumps(self.losses)

    @property
    def final_loss(self) -> float:
        """The mean of the last quarter of the steps."""
        return statistics.fmean(self.losses[-max(1, round(FINAL_SHARE * len(self.losses))) :])

    def to_dict(self) -> dict[str, object]:
        jumps = [
            {
                "begin": each.begin,
                "end": each.end,
                "level": encode_number(each.level),
                "peak": encode_number(each.peak),
            }
            for each in self.jumps
        ]
        final = encode_number(self.final_loss)
        return {"safeguard": self.safeguard, "seed": self.seed, "final_loss": final, "jumps": jumps}


def unstable_runs(
    seeds: Iterable[int],
    folder: Path,
    *,
    steps: int = STEPS,
    overrides: Sequence[str] = (),
    safeguards: Sequence[Safeguard] = SAFEGUARDS,
    report: Callable[[str], None] = lambda sentence: None,
) -> Iterator[UnstableRun]:
    """Train every safeguard with every seed. Raises UsageError and Stopped."""
    for seed in seeds:
        for safeguard in safeguards:
            report(f"{safeguard.name}, seed {seed}, {steps} steps")
            chosen = [f"seed={seed}", f"steps={steps}", *overrides, *safeguard.overrides]
            losses = _losses(load_recipe(RECIPE, chosen), safeguard, folder)
            yield UnstableRun(safeguard.name, seed, losses)


def _losses(recipe: Recipe, safeguard: Safeguard, folder: Path) -> list[float]:
    """The loss of every step. Nothing but training happens: no evaluation, no probe, and no checkpoint but the last."""
    plain = replace(recipe, evaluate_every=0, probe_every=0, checkpoint=CheckpointConfig(every=recipe.steps, memory=0))
    losses: list[float] = []
    job = Job(
        directory=folder,
        run=Run(id=f"{safeguard.name}-{recipe.seed}"),
        quiet=True,
        on_step=lambda step, batch, metrics: losses.append(metrics["loss"]),
        accepts=SkipStep() if safeguard.skips_outliers else None,
    )
    outcome = train(plain, job)
    if outcome.interrupted_by is not None:
        raise Stopped(outcome.interrupted_by)
    return losses


def show_unstable(runs: Sequence[UnstableRun], console: Console) -> None:
    """One row per safeguard: means over the seeds, with standard errors."""
    table = Table()
    for name in ("safeguard", "jumps by seed", "jumps", "largest jump", "steps lost", "final loss"):
        table.add_column(name)
    for name in dict.fromkeys(run.safeguard for run in runs):
        own = [run for run in runs if run.safeguard == name]
        largest = max((jump.size for run in own for jump in run.jumps), default=None)
        table.add_row(
            name,
            ", ".join(str(len(run.jumps)) for run in own),
            str(Estimate.of(len(run.jumps) for run in own)),
            "-" if largest is None else f"{largest:.1f} x",
            str(Estimate.of(sum(jump.num_steps for jump in run.jumps) for run in own)),
            str(Estimate.of(run.final_loss for run in own)),
        )
    console.print(table)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))
    console.print(f"Mean ± standard error over the seeds {seeds}; a jump is defined in trainer/lab/jumps.py.")


def plot_unstable(runs: Sequence[UnstableRun]) -> str:
    """The losses of the first seed, as an SVG file: the largest mean of 5 steps in each of at most 400 intervals."""
    first = [run for run in runs if run.seed == runs[0].seed]
    title = f"Training loss of the recipe {RECIPE}, seed {runs[0].seed}, one safeguard at a time"
    return svg(title, [_curve(run) for run in first], Axis(title="step"), Axis(title="nats per token", is_log=True))


def _curve(run: UnstableRun) -> Curve:
    means = [statistics.fmean(run.losses[max(0, t + 1 - MEAN_STEPS) : t + 1]) for t in range(len(run.losses))]
    width = -(-len(means) // MAX_PLOTTED_POINTS)
    starts = range(0, len(means), width)
    return Curve(name=run.safeguard, x=[*starts], y=[max(means[start : start + width]) for start in starts])
