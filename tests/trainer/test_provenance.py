from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.small import small_recipe
from trainer.config import ModelConfig, Recipe
from trainer.data.held_out import HeldOut
from trainer.data.split import BY_HASH
from trainer.errors import UsageError
from trainer.provenance import BEFORE, Provenance


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


def test_a_checkpoint_of_an_earlier_release_is_continued_if_the_order_of_the_data_is_the_same(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    new = Provenance(recipe, num_windows=9)
    earlier = {name: value for name, value in new.state_dict().items() if name not in BEFORE}
    new.load_state_dict(earlier)
    by_hash = HeldOut([], 16, num_windows=9, vocab_size=256, chosen=BY_HASH)
    with pytest.raises(UsageError, match="held-out data was 'the end of the data' and is 'documents chosen by"):
        Provenance(recipe, num_windows=9, held_out=by_hash).load_state_dict(earlier)
    with pytest.raises(UsageError, match=r"data.curriculum_steps was None and is 20"):
        Provenance(with_curriculum(recipe), num_windows=9).load_state_dict(earlier | {"data.easy_first": True})


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
    assert state["the shuffle of a few windows"] == "sorted"
    with pytest.raises(UsageError, match=r"training windows in the data was 500 and is 400"):
        Provenance(recipe, num_windows=400).load_state_dict(state)


def test_a_run_of_a_few_windows_does_not_continue_with_the_order_of_an_earlier_release(tmp_path: Path) -> None:
    new = Provenance(small_recipe(tmp_path), num_windows=37)
    earlier = {name: value for name, value in new.state_dict().items() if "shuffle" not in name}
    with pytest.raises(UsageError, match="the shuffle of a few windows was None and is 'sorted'"):
        new.load_state_dict(earlier)
    many = Provenance(small_recipe(tmp_path), num_windows=257)
    many.load_state_dict({name: value for name, value in many.state_dict().items() if "shuffle" not in name})


def test_a_checkpoint_from_before_untied_weights_continues_with_tied_ones_only(tmp_path: Path) -> None:
    state = Provenance(small_recipe(tmp_path), num_windows=300).state_dict()
    del state["model.tied"]
    Provenance(small_recipe(tmp_path), num_windows=300).load_state_dict(state)
    untied = ModelConfig(layers=2, heads=2, width=16, context=16, tied=False)
    with pytest.raises(UsageError, match=r"model\.tied was True and is False"):
        Provenance(small_recipe(tmp_path, model=untied), num_windows=300).load_state_dict(state)
