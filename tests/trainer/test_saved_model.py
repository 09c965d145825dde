from pathlib import Path

import pytest
import torch

from lossguard.torch import checkpoints_in
from tests.trainer.small import small_recipe
from trainer.errors import UsageError
from trainer.saved_model import load_model
from trainer.train import Job, train


def test_the_model_of_a_checkpoint_is_the_one_of_the_run(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, steps=5)
    outcome = train(recipe, Job(directory=tmp_path, run_id="r", mode="offline", quiet=True))
    model = load_model(checkpoints_in(tmp_path / recipe.project / "r" / "checkpoints")[5])
    inputs = torch.arange(16).unsqueeze(0)
    assert torch.equal(model(inputs), outcome.model.eval()(inputs))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a folder such as"):
        load_model(tmp_path)
