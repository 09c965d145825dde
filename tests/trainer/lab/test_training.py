from pathlib import Path

import pytest

from tests.trainer.small import small_recipe
from trainer.config import DataConfig
from trainer.errors import UsageError
from trainer.lab.training import train_unrecorded


def test_runs_of_one_name_do_not_continue_each_other(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=6, evaluate_every=0)
    runs = [train_unrecorded(recipe, tmp_path)[1] for _ in range(2)]
    assert [row["loss"] for row in runs[0]] == [row["loss"] for row in runs[1]]
    assert len(runs[0]) == 6
    assert "held_out_loss" in runs[0][-1]


def test_the_lab_needs_held_out_data(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    recipe = small_recipe(tmp_path, data=DataConfig(path=recipe.data.path, batch_size=4, held_out=0.0))
    with pytest.raises(UsageError, match="the lab"):
        train_unrecorded(recipe, tmp_path)
