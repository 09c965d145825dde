from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard.torch import checkpoints_in
from tests.trainer.small import small_recipe
from trainer.config import ModelConfig, Recipe
from trainer.errors import UsageError
from trainer.process.provenance import Provenance, load_model
from trainer.train import Job, train


def test_a_checkpoint_continues_with_the_settings_it_was_made_with(tmp_path: Path) -> None:
    state = Provenance(small_recipe(tmp_path), num_windows=9).state_dict()
    Provenance(small_recipe(tmp_path, steps=99), num_windows=9).load_state_dict(state)


def with_curriculum(recipe: Recipe, **settings: Any) -> Recipe:
    return replace(recipe, data=replace(recipe.data, easy_first=True, **settings))


def test_a_curriculum_is_continued_only_with_its_length(tmp_path: Path) -> None:
    recipe = with_curriculum(small_recipe(tmp_path, steps=20))
    state = Provenance(recipe, num_windows=9).state_dict()
    Provenance(with_curriculum(small_recipe(tmp_path, steps=40), curriculum_steps=20), num_windows=9).load_state_dict(
        state
    )
    with pytest.raises(UsageError, match=r"data.curriculum_steps was 20 and is 40\. Set the recipe as it was"):
        Provenance(with_curriculum(small_recipe(tmp_path, steps=40)), num_windows=9).load_state_dict(state)


def test_a_checkpoint_of_another_model_or_other_data_is_refused_by_name(tmp_path: Path) -> None:
    state = Provenance(small_recipe(tmp_path), num_windows=9).state_dict()
    other = small_recipe(tmp_path, model=ModelConfig(layers=3, heads=2, width=16, context=16))
    with pytest.raises(
        UsageError, match=r"model.layers was 2 and is 3; the number of training windows .* was 9 and is 8"
    ):
        Provenance(other, num_windows=8).load_state_dict(state)


def test_the_first_windows_of_other_data_are_other_windows(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    recipe = replace(recipe, data=replace(recipe.data, max_windows=38))
    state = Provenance(recipe, num_windows=500).state_dict()
    with pytest.raises(UsageError, match=r"training windows in the data was 500 and is 400"):
        Provenance(recipe, num_windows=400).load_state_dict(state)


def test_the_model_of_a_checkpoint_is_the_one_of_the_run(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=5)
    outcome = train(recipe, Job(directory=tmp_path, run_id="r", mode="offline", quiet=True))
    model = load_model(checkpoints_in(tmp_path / recipe.project / "r" / "checkpoints")[5])
    inputs = torch.arange(16).unsqueeze(0)
    assert torch.equal(model(inputs), outcome.model.eval()(inputs))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a folder such as"):
        load_model(tmp_path)
