"""Each name of transformers that is not public and that the adapter uses: one that goes is named here."""

import inspect
from pathlib import Path

import pytest
import transformers
from transformers import Trainer, TrainerState

from tests.lossguard.hf.small import Rows, trainer_in

pytestmark = pytest.mark.slow


OF_ITS_CHECKPOINTS = (
    *("_save_checkpoint", "_load_from_checkpoint", "_load_optimizer_and_scheduler"),
    "_load_scaler",
)


@pytest.mark.parametrize("name", ["_maybe_log_save_evaluate", "_prepare_inputs", *OF_ITS_CHECKPOINTS])
def test_the_trainer_has_the_private_method(name: str) -> None:
    assert callable(getattr(Trainer, name, None)), f"transformers.Trainer.{name} has gone"


def test_the_sum_of_losses_is_the_first_argument_of_the_method_that_logs_it() -> None:
    first = list(inspect.signature(Trainer._maybe_log_save_evaluate).parameters)[1]
    assert first == "tr_loss", f"Trainer._maybe_log_save_evaluate takes {first} first, and no more tr_loss"


def test_the_initial_values_are_seven_in_the_known_order() -> None:
    names = "num_train_epochs num_update_steps_per_epoch num_examples num_train_samples"
    text = inspect.getsource(Trainer.set_initial_training_values).rpartition("return")[2]
    found = [each.strip() for each in text.strip(" \n()").split(",") if each.strip()]
    assert found[:4] == names.split(), f"Trainer.set_initial_training_values returns {found}"
    assert (len(found), found[5] in ("steps_in_epoch", "len_dataloader"), found[6]) == (7, True, "max_steps"), (
        f"Trainer.set_initial_training_values returns {found}"
    )


SUMS = ["_total_loss_scalar", "_globalstep_last_logged", "current_flos"]
IS_OLD = transformers.__version__.startswith("4.")  # there, a local variable is the sum of losses


@pytest.mark.parametrize("name", SUMS if IS_OLD else [*SUMS, "_tr_loss"])
def test_a_training_keeps_its_sums_under_the_known_names(tmp_path: Path, name: str) -> None:
    trainer = trainer_in(tmp_path, Rows(8), max_steps=1)
    trainer.train()
    assert hasattr(trainer, name), f"transformers.Trainer.{name} has gone"


@pytest.mark.parametrize("name", ["epoch", "global_step", "log_history", "best_metric", "best_model_checkpoint"])
def test_the_state_has_its_progress_under_the_known_names(name: str) -> None:
    assert hasattr(TrainerState(), name), f"transformers.TrainerState.{name} has gone"


@pytest.mark.parametrize("name", ["training_step", "get_train_dataloader", "set_initial_training_values", "train"])
def test_the_trainer_calls_its_methods_by_their_names(name: str) -> None:
    source = inspect.getsource(Trainer)
    assert f"self.{name}(" in source or name == "train", f"transformers.Trainer calls self.{name} no more"
    assert callable(getattr(Trainer, name, None)), f"transformers.Trainer.{name} has gone"
