from pathlib import Path

import pytest

from tests.trainer.small import small_recipe
from trainer.config import DataConfig
from trainer.errors import UsageError
from trainer.lab.training import Lab


def test_seeds_follow_each_other_and_a_quick_sweep_has_two(tmp_path: Path) -> None:
    assert list(Lab(folder=tmp_path, seed=4).seeds(3)) == [4, 5, 6]
    assert list(Lab(folder=tmp_path, quick=True).seeds(5)) == [1, 2]
    assert list(Lab(folder=tmp_path, quick=True).seeds(1)) == [1]
    assert list(Lab(folder=tmp_path, num_seeds=1, quick=True).seeds(5)) == [1]


def test_runs_of_one_name_do_not_continue_each_other(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=6, evaluate_every=0)
    runs = [Lab(folder=tmp_path).train(recipe)[1] for _ in range(2)]
    assert [row["loss"] for row in runs[0]] == [row["loss"] for row in runs[1]]
    assert len(runs[0]) == 6
    assert "held_out_loss" in runs[0][-1]


def test_the_lab_needs_held_out_data(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, data=DataConfig(held_out=0.0))
    with pytest.raises(UsageError, match="the lab"):
        Lab(folder=tmp_path).train(recipe)
