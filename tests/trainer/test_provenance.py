from pathlib import Path

import pytest

from tests.trainer.small import small_recipe
from trainer.config import ModelConfig
from trainer.errors import UsageError
from trainer.provenance import Provenance


def test_a_checkpoint_continues_with_the_settings_it_was_made_with(tmp_path: Path) -> None:
    state = Provenance(small_recipe(tmp_path), num_windows=9).state_dict()
    Provenance(small_recipe(tmp_path, steps=99), num_windows=9).load_state_dict(state)


def test_a_checkpoint_of_another_model_or_other_data_is_refused_by_name(tmp_path: Path) -> None:
    state = Provenance(small_recipe(tmp_path), num_windows=9).state_dict()
    other = small_recipe(tmp_path, model=ModelConfig(layers=3, heads=2, width=16, context=16))
    with pytest.raises(
        UsageError, match=r"model.layers was 2 and is 3; the number of training windows .* was 9 and is 8"
    ):
        Provenance(other, num_windows=8).load_state_dict(state)


def test_a_run_of_a_few_windows_does_not_continue_with_the_order_of_an_earlier_release(tmp_path: Path) -> None:
    new = Provenance(small_recipe(tmp_path), num_windows=37)
    earlier = {name: value for name, value in new.state_dict().items() if "shuffle" not in name}
    with pytest.raises(UsageError, match="the shuffle of a few windows was None and is 'sorted'"):
        new.load_state_dict(earlier)
    many = Provenance(small_recipe(tmp_path), num_windows=257)
    many.load_state_dict({name: value for name, value in many.state_dict().items() if "shuffle" not in name})
