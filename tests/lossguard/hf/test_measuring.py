import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard.hf import watch
from tests.lossguard.hf.small import LENGTH, LoggedRun, Rows, Traced, state_of, trainer_in

pytestmark = pytest.mark.slow


def watched(folder: Path, data: Any, *, log_z: bool = False, **options: Any) -> tuple[Any, LoggedRun]:
    trainer, run = trainer_in(folder, data, **options), LoggedRun()
    watch(trainer, run, log_z=log_z)
    return trainer, run


def logged_by_the_trainer(trainer: Any, name: str) -> list[float]:
    return [each[name] for each in trainer.state.log_history if "grad_norm" in each]


def test_every_step_has_what_the_trainer_itself_logs_with_logging_steps_1_to_the_last_digit(tmp_path: Path) -> None:
    rows = Rows(46, lengths=(5, LENGTH, 9))  # tokens that do not count
    each = trainer_in(tmp_path / "each", rows, max_steps=20, logging_steps=1)
    each.train()
    trainer, run = watched(tmp_path, rows, max_steps=20, logging_steps=7)
    trainer.train()
    rounded = [round(loss, 4) for loss in run.column("loss")]  # as transformers 4 logs it
    losses = logged_by_the_trainer(each, "loss")
    assert losses in (run.column("loss"), rounded)
    assert run.column("grad_norm") == logged_by_the_trainer(each, "grad_norm")
    assert run.column("lr") == logged_by_the_trainer(each, "learning_rate")
    assert run.column("batch_index") == list(range(20))
    rows_of_a_step = [4] * 11 + [2] + [4] * 8  # the last step of an epoch has 1 micro-batch
    assert run.column("tokens") == [LENGTH * sum(rows_of_a_step[: n + 1]) for n in range(20)]
    assert state_of(trainer) == state_of(each)
    assert run.announced == [None]


def test_a_nan_is_reported_as_a_nan_and_not_as_the_loss_that_the_trainer_makes_of_it(tmp_path: Path) -> None:
    class Struck(Traced):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            loss = super().training_step(model, inputs, num_items_in_batch)
            return loss * math.nan if self.state.global_step == 3 else loss

    trainer, run = watched(tmp_path, Rows(40), max_steps=6, logging_steps=1, cls=Struck)
    trainer.train()
    assert [math.isnan(loss) for loss in run.column("loss")] == [False, False, False, True, False, False]
    assert logged_by_the_trainer(trainer, "loss")[3] == 0.0


def test_the_gradient_norm_is_measured_where_nothing_is_clipped(tmp_path: Path) -> None:
    clipped, run = watched(tmp_path / "a", Rows(40), max_steps=3, max_grad_norm=1e9)
    clipped.train()
    free, others = watched(tmp_path / "b", Rows(40), max_steps=3, max_grad_norm=0.0)
    free.train()
    assert others.column("grad_norm") == pytest.approx(run.column("grad_norm"), rel=1e-6)
    assert all(norm > 0 for norm in run.column("grad_norm"))


def test_the_run_knows_whether_the_loss_is_scaled(tmp_path: Path) -> None:
    for scaler in (None, torch.amp.GradScaler("cpu")):
        trainer, run = watched(tmp_path, Rows(40), max_steps=1)
        trainer.accelerator.scaler = scaler  # of float16, which needs a GPU
        trainer.train()
        assert run.is_scaled == (scaler is not None)


def test_evaluations_are_the_held_out_loss_of_the_step_before_them(tmp_path: Path) -> None:
    trainer, run = watched(tmp_path, Rows(40), max_steps=8, eval_strategy="steps", eval_steps=3)
    trainer.eval_dataset = {"code": Rows(4), "text": Rows(6)}
    trainer.train()
    evaluated = [step for step, metrics in run.logged if "held_out_loss_code" in metrics]
    assert evaluated[:2] == [2, 5]
    losses = [each["eval_text_loss"] for each in trainer.state.log_history if "eval_text_loss" in each]
    assert [name for name, _ in run.durations] == ["evaluation_seconds"] * 2 * len(evaluated)
    assert [loss for loss in run.column("held_out_loss_text") if loss is not None] == losses


def test_the_run_knows_the_arguments_the_model_and_the_number_of_steps(tmp_path: Path) -> None:
    trainer, run = watched(tmp_path, Rows(40), num_train_epochs=1)
    trainer.train()
    assert run.total_steps == 10
    assert run.config["training_arguments"]["gradient_accumulation_steps"] == 2
    assert run.config["model"]["class"] == "GPT2LMHeadModel"
    assert run.config["model"]["num_parameters"] == sum(each.numel() for each in trainer.model.parameters())
    assert run.config["model"]["config"]["n_embd"] == 16


def test_afterwards_the_trainer_is_as_it_was_and_another_call_is_measured_too(tmp_path: Path) -> None:
    trainer, run = watched(tmp_path, Rows(40), max_steps=2)
    before = dict(vars(trainer))
    trainer.train()
    assert {name for name in vars(trainer) if name not in before and callable(vars(trainer)[name])} == set()
    assert type(trainer).training_step is Traced.training_step
    trainer.train()
    assert [step for step, _ in run.logged] == [0, 1, 0, 1]


def test_a_measurement_that_fails_is_reported_once_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(LoggedRun):
        def log(self, /, step: int, **metrics: Any) -> None:
            raise OSError("a bug")

        def add_config(self, config: Any, *, total_steps: int | None = None) -> None:
            raise KeyError("another")

    plain = trainer_in(tmp_path / "plain", Rows(40), max_steps=5)
    plain.train()
    trainer = trainer_in(tmp_path, Rows(40), max_steps=5)
    watch(trainer, Failing())
    trainer.train()
    assert state_of(trainer) == state_of(plain)
    assert caplog.text.count("a bug") == 1
    assert caplog.text.count("another") == 1
