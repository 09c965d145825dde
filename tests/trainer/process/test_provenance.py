from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lossguard.torch import Checkpoints, TorchRanks, checkpoints_in
from tests.trainer.small import small_recipe
from trainer.config import ModelConfig, Recipe
from trainer.errors import UsageError
from trainer.model import GPT
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
    assert torch.equal(model(inputs), outcome.components.model.eval()(inputs))


@pytest.fixture
def checkpoint_of_ranks(tmp_path: Path) -> tuple[Path, GPT]:
    """A checkpoint in the form that several ranks write, and its model."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    recipe = small_recipe(tmp_path)
    model, origin = GPT(recipe.model), Provenance(recipe, num_windows=9)
    folder = tmp_path / "checkpoints"
    Checkpoints(folder, ranks=TorchRanks(), blocking=True, origin=origin, model=model).save(5, {})
    dist.destroy_process_group()
    return folder / "step-000000005", model


@pytest.mark.slow
def test_the_model_of_a_checkpoint_of_several_ranks_is_the_one_of_the_run(
    checkpoint_of_ranks: tuple[Path, GPT],
) -> None:
    folder, model = checkpoint_of_ranks
    inputs = torch.arange(16).unsqueeze(0)
    assert torch.equal(load_model(folder)(inputs), model.eval()(inputs))


@pytest.mark.slow
def test_a_checkpoint_of_several_ranks_that_cannot_be_read_is_refused_in_a_sentence(
    checkpoint_of_ranks: tuple[Path, GPT],
) -> None:
    folder, _ = checkpoint_of_ranks
    with pytest.raises(UsageError, match=r"copy is of several ranks: its folder must be called step-NUMBER\."):
        load_model(folder.rename(folder.with_name("copy")))
    folder.with_name("copy").rename(folder)
    next(folder.glob("*.distcp")).write_bytes(b"")
    with pytest.raises(UsageError, match=r"step-000000005 cannot be read: .* holds no intact checkpoint"):
        load_model(folder)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a folder such as"):
        load_model(tmp_path)
