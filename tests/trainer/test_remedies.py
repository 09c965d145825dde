"""A real run in which an order switches all remedies on."""

from pathlib import Path

import pytest

from tests.lossguard.scripted import ScriptedRun, rollback
from tests.trainer.small import small_recipe
from trainer.train import Job, train


@pytest.mark.slow
def test_an_order_changes_learning_rate_z_loss_and_clipping_for_a_tenth_of_the_run(tmp_path: Path) -> None:
    run = ScriptedRun({26: rollback(rewind_to=20, remedies=("learning_rate", "z_loss", "clip", "moments"))})
    seen: list[tuple[int, float, float]] = []

    def note(step: int, batch: int, metrics: dict[str, float]) -> None:
        seen.append((step, metrics["lr"], metrics["z_loss"] / metrics["log_z"] ** 2))

    train(small_recipe(tmp_path, steps=40), Job(directory=tmp_path, run=run, on_step=note, quiet=True))
    assert run.recorded[1][3]["remedies"] == {"learning_rate": 24, "z_loss": 24, "clip": 24, "moments": 21}
    before, after = dict((s, rest) for s, *rest in seen[:25]), dict((s, rest) for s, *rest in seen[25:])
    assert list(after) == list(range(20, 40))
    assert [after[step][0] / before[step][0] for step in range(20, 25)] == pytest.approx([0.5] * 4 + [1.0])
    ratios = [after[step][1] / before[step][1] for step in range(20, 25)]
    assert ratios == pytest.approx([10.0] * 4 + [1.0], rel=0.3)
