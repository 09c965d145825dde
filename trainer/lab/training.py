"""Training for a comparison: nothing is recorded, printed or probed, and only the end is evaluated and saved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lossguard import Run
from trainer.config import CheckpointConfig, Recipe, load_recipe
from trainer.errors import UsageError
from trainer.train import Job, TrainingResult, train

STEPS = 500
"""Steps of a run, unless its sweep or the command line says otherwise."""
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
class Lab:
    """The settings of a sweep from the command line, and the trainings that it asks for."""

    folder: Path
    """For temporary folders."""
    report: Callable[[str], None] = lambda sentence: None
    """Takes a sentence about progress."""
    seed: int = 1
    """The first one."""
    num_seeds: int | None = None
    """None: as many as the sweep has by default, or 2 of a quick one."""
    steps: int | None = None
    """Steps of each run; None for the sweep's own number."""
    quick: bool = False
    """Fewer seeds and steps."""
    overrides: Sequence[str] = ()
    """Overrides of all recipes, as in `--set`."""
    recipes: Sequence[str] = ()
    """Recipes that the sweep `switches` compares; empty: all switches."""

    def __post_init__(self) -> None:
        """Raises UsageError for an override that would make different runs the same one, or give them one name."""
        for override in self.overrides:
            name = override.partition("=")[0].strip()
            if name in OWN_FIELDS:
                raise UsageError(f"--set {override} cannot be used in the lab: {OWN_FIELDS[name]}.")

    def seeds(self, usual: int = 3) -> range:
        """`usual`: how many, if the command line does not say."""
        return range(self.seed, self.seed + (self.num_seeds or (min(QUICK_SEEDS, usual) if self.quick else usual)))

    def recipe(self, name: str, seed: int, *overrides: str, steps: int = STEPS) -> Recipe:
        """Load a recipe for one run; `steps`: of one that is not quick, if the command line does not say."""
        steps = self.steps or (steps // QUICK_SHARE if self.quick else steps)
        return load_recipe(name, [*self.overrides, *overrides, f"steps={steps}", f"seed={seed}"])

    def train(
        self, recipe: Recipe, name: str | None = None, *, accepts: Callable[[float, float], bool] | None = None
    ) -> tuple[TrainingResult, list[dict[str, float]]]:
        """Train; return the result and the metrics of every step, the last with the held-out loss.

        `name`: the run in the report; `accepts`: see Job. Raises UsageError, and Stopped on a signal.
        """
        if recipe.data.held_out == 0.0:
            raise UsageError("data.held_out = 0.0 cannot be used in the lab, which compares held-out losses.")
        self.report(f"{name or recipe.name}, seed {recipe.seed}, {recipe.steps} steps")
        rows: list[dict[str, float]] = []
        with TemporaryDirectory(dir=self.folder) as place:  # a run never continues from the checkpoint of another one
            job = Job(
                directory=Path(place),
                run=Run(id=recipe.name),
                quiet=True,
                accepts=accepts,
                on_step=lambda step, batch, metrics: rows.append(metrics),
            )
            once = CheckpointConfig(every=recipe.steps, memory=0)
            result = train(replace(recipe, evaluate_every=recipe.steps, probe_every=0, checkpoint=once), job)
        return result.complete(), rows
