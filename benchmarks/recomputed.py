"""What recomputed steps show: by how much 8 of them differ from their record after a restore that is right, or wrong.

python -m benchmarks.recomputed                 three places in two recipes: half a minute on one core

Each cell is the difference in thousandths of the loss, at the first step (before any update) and at the largest of all,
and in bold if the check calls it a mismatch in the first replay of a run.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from monitor.detection import Rows
from monitor.detection.rows import Floats
from monitor.detection.scoring.detectors import DetectorSet
from monitor.detection.scoring.recomputed_steps import RecomputedSteps
from monitor.detection.scoring.replay_comparison import MAX_ROWS, Comparison
from monitor.detection.settings import DetectionSettings
from trainer.components import Components, build_components
from trainer.config import Recipe, load_recipe
from trainer.schedule import learning_rate, set_learning_rate
from trainer.train import training_step

PLACES = (("drill", 200), ("drill", 600), ("unstable", 500))
OLD_STEPS, OTHER_BATCHES = 50, 1000


class Run:
    """One run at one step, which can be restored."""

    def __init__(self, recipe: Recipe, step: int) -> None:
        self.recipe, self.step = recipe, step
        self.components: Components = build_components(recipe)
        self.losses = [self.train(each, each) for each in range(step - OLD_STEPS)]
        self.old = self.state()
        self.losses += [self.train(each, each) for each in range(step - OLD_STEPS, step)]
        self.now = self.state()

    def train(self, step: int, batch: int) -> float:
        set_learning_rate(self.components.optimizer, learning_rate(step, self.recipe.optimizer, self.recipe.steps))
        return training_step(self.recipe, self.components, self.components.batches[batch], None)["loss"]

    def state(self) -> Any:
        return copy.deepcopy((self.components.model.state_dict(), self.components.optimizer.state_dict()))

    def again(self, damage: Callable[["Run"], None] | None = None, *, batches: int = 0) -> Floats:
        """The losses of the next steps, after a restore and some damage to what was restored."""
        model, optimizer = copy.deepcopy(self.now)
        self.components.model.load_state_dict(model)
        self.components.optimizer.load_state_dict(optimizer)
        if damage is not None:
            damage(self)
        return np.array([self.train(each, each + batches) for each in range(self.step, self.step + MAX_ROWS)])


@torch.no_grad()
def round_weights(run: Run) -> None:
    for parameter in run.components.model.parameters():
        parameter.copy_(parameter.bfloat16())


def lose_optimizer(run: Run) -> None:
    run.components.optimizer.state.clear()


def lose_moments(name: str) -> Callable[[Run], None]:
    def lose(run: Run) -> None:
        for state in run.components.optimizer.state.values():
            state[name].zero_()

    return lose


def take_old_weights(run: Run) -> None:
    run.components.model.load_state_dict(copy.deepcopy(run.old[0]))


@contextmanager
def in_bfloat16(run: Run) -> Iterator[None]:
    model = run.components.model
    forward = model.forward

    def rounded(*arguments: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*arguments).float()

    model.forward = rounded  # type: ignore[method-assign, assignment]
    yield
    model.forward = forward  # type: ignore[method-assign]


def replays(run: Run) -> Iterator[tuple[str, Floats]]:
    yield "nothing", run.again()
    yield "weights rounded to bfloat16", run.again(round_weights)
    with in_bfloat16(run):
        yield "computed in bfloat16", run.again()
    yield "first moments lost", run.again(lose_moments("exp_avg"))
    yield "second moments lost", run.again(lose_moments("exp_avg_sq"))
    yield "optimizer state lost", run.again(lose_optimizer)
    yield f"weights of {OLD_STEPS} steps before", run.again(take_old_weights)
    yield "other batches", run.again(batches=OTHER_BATCHES)


def cell(run: Run, recorded: Floats, recomputed: Floats) -> str:
    share = 1000 * np.abs(recomputed - recorded) / recorded
    text = f"{share[0]:.3g}, {share.max():.3g}"
    return f"**{text}**" if is_mismatch(run, recorded, recomputed) else text


def is_mismatch(run: Run, recorded: Floats, recomputed: Floats) -> bool:
    detectors = DetectorSet(DetectionSettings())
    detectors.learn([Rows.of(range(run.step), loss=run.losses)])
    noise = detectors.by_signal["loss"].baseline.noise
    steps = np.arange(run.step, run.step + MAX_ROWS)
    rows = [Rows.of(steps, loss=loss, batch_index=steps.astype(float)) for loss in (recorded, recomputed)]
    check = RecomputedSteps()
    check.begin(Comparison.of(run.step, rows[0], noise=noise), run.step)
    verdict = check.observe(rows[1])
    assert verdict is not None
    return verdict.is_mismatch()


def main() -> None:
    torch.set_num_threads(1)
    columns: dict[str, list[str]] = {}
    for name, step in PLACES:
        run = Run(load_recipe(name, ["device=cpu"]), step)
        recorded = run.again()
        for label, recomputed in replays(run):
            columns.setdefault(label, []).append(cell(run, recorded, recomputed))
    print("| what differs | " + " | ".join(f"`{name}`, step {step}" for name, step in PLACES) + " |")
    print("|---|" + "---|" * len(PLACES))
    for label, cells in columns.items():
        print(f"| {label} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
