"""Training for a comparison: nothing is recorded, printed or probed, and only the end is evaluated and saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lossguard import Run
from trainer.config import CheckpointConfig, Recipe
from trainer.errors import Stopped, UsageError
from trainer.train import Job, TrainingResult, train


def train_unrecorded(
    recipe: Recipe, folder: Path, *, accepts: Callable[[float, float], bool] | None = None
) -> tuple[TrainingResult, list[dict[str, float]]]:
    """Train; return the result and the metrics of every step, the last with the held-out loss. `accepts`: see Job.

    Raises UsageError, and Stopped on a signal.
    """
    if recipe.data.held_out == 0.0:
        raise UsageError("data.held_out = 0.0 cannot be used in the lab, which compares held-out losses.")
    rows: list[dict[str, float]] = []
    with TemporaryDirectory(dir=folder) as place:  # a run never continues from the checkpoint of another one
        job = Job(
            directory=Path(place),
            run=Run(id=recipe.name),
            quiet=True,
            accepts=accepts,
            on_step=lambda step, batch, metrics: rows.append(metrics),
        )
        once = CheckpointConfig(every=recipe.steps, memory=0)
        outcome = train(replace(recipe, evaluate_every=recipe.steps, probe_every=0, checkpoint=once), job)
    if outcome.interrupted_by is not None:
        raise Stopped(outcome.interrupted_by)
    return outcome, rows
