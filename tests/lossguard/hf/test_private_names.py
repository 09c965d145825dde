"""Each name of transformers that is not public and that the adapter uses: one that goes is named here."""

import inspect
from pathlib import Path

import pytest
import transformers
from transformers import Trainer, TrainerState

from tests.lossguard.hf.small import Rows, trainer_in

pytestmark = pytest.mark.slow


PRIVATE = (
    *("_maybe_log_save_evaluate", "_prepare_inputs", "_save_checkpoint"),
    *("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler"),
)
CALLED = ("training_step", "get_train_dataloader", "set_initial_training_values")
IS_OLD = transformers.__version__.startswith("4.")  # there, a local variable is the sum of losses


def test_the_trainer_has_its_methods_and_calls_them_by_their_names() -> None:
    source = inspect.getsource(Trainer)
    gone = [name for name in (*PRIVATE, *CALLED, "train") if not callable(getattr(Trainer, name, None))]
    gone += [f"the call of {name}" for name in CALLED if f"self.{name}(" not in source]
    assert gone == [], f"transformers.Trainer has lost {', '.join(gone)}"


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


def test_a_training_keeps_its_sums_and_its_progress_under_the_known_names(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(8), max_steps=1)
    trainer.train()
    sums = ("_total_loss_scalar", "_globalstep_last_logged", "current_flos", *(() if IS_OLD else ("_tr_loss",)))
    gone = [name for name in sums if not hasattr(trainer, name)]
    progress = ("epoch", "global_step", "log_history", "best_metric", "best_model_checkpoint")
    gone += [f"TrainerState.{name}" for name in progress if not hasattr(TrainerState(), name)]
    assert gone == [], f"transformers.Trainer has lost {', '.join(gone)}"
