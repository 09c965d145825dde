"""Whether each private name of Lightning that is used still means what it did: the name of the test says which."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lossguard.lightning.framework import Trainer
from lossguard.lightning.trainer_checkpoints import Callbacks, Loops
from lossguard.lightning.watch import Watch
from lossguard.vocabulary.errors import LogOnce
from tests.lossguard.lightning.fitting import LoggingRun, Module, fit, shuffled

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """After 12 steps of 2 micro-batches, 6 to an epoch, with a validation at the end of each."""
    module = fit(tmp_path_factory.mktemp("fit"), shuffled(44), max_steps=12, accumulate_grad_batches=2, validation=True)
    return module.trainer


def test_fit_loop_has_epoch_progress_with_four_counters(trainer: Trainer) -> None:
    for progress in (trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_progress.total):
        assert vars(progress) == {"ready": 2, "started": 2, "processed": 2, "completed": 2}


def test_epoch_loop_has_batch_progress_with_four_counters(trainer: Trainer) -> None:
    progress = trainer.fit_loop.epoch_loop.batch_progress
    assert vars(progress.current) == {"ready": 11, "started": 11, "processed": 11, "completed": 11}
    assert vars(progress.total) == {"ready": 22, "started": 22, "processed": 22, "completed": 22}


def test_optim_progress_counts_the_steps(trainer: Trainer) -> None:
    progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
    assert progress.optimizer_steps == trainer.global_step == 12
    assert progress.state_dict()["optimizer"]["step"]["total"]["completed"] == 12


def test_scheduler_progress_counts_the_schedule(trainer: Trainer) -> None:
    assert trainer.fit_loop.epoch_loop.scheduler_progress.state_dict()["total"]["completed"] == 12


def test_batches_that_stepped_counts_for_loggers(trainer: Trainer) -> None:
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 12


def test_callback_metrics_are_kept_by_the_logger_connector(trainer: Trainer) -> None:
    connector = trainer._logger_connector
    assert trainer.callback_metrics is connector._callback_metrics
    assert set(connector._callback_metrics) == {"train_loss", "val_loss"}


def test_results_of_the_epoch_can_be_reset(trainer: Trainer) -> None:
    trainer.fit_loop.epoch_loop._results.reset()


def test_data_fetcher_counts_what_it_fetched() -> None:
    module = Module()
    fetched: list[tuple[int, int]] = []

    def before_step(module: Module) -> None:
        fetcher: Any = module.trainer.fit_loop._data_fetcher
        fetched.append((fetcher.fetched, module.trainer.fit_loop.epoch_loop.batch_idx))

    module.before_step = before_step
    fit(Path(), shuffled(12), module=module, max_epochs=2)
    assert fetched == [(1, 0), (2, 1), (3, 2)] * 2


def test_model_checkpoint_remembers_the_last_step_that_it_saved() -> None:
    assert ModelCheckpoint()._last_global_step_saved == 0


def test_ddp_strategy_knows_how_its_processes_start() -> None:
    assert [DDPStrategy(start_method=method)._start_method for method in ("popen", "spawn")] == ["popen", "spawn"]


def test_an_extended_fit_has_one_more_step_until_it_is_not(trainer: Trainer) -> None:
    loops = Loops(trainer, Watch(LoggingRun()))
    fit_loop = trainer.fit_loop
    limits = (fit_loop.max_steps, fit_loop.max_epochs)
    assert fit_loop.done
    loops.extend()
    loops.extend()
    assert (fit_loop.done, fit_loop.max_steps, fit_loop.max_epochs) == (False, 13, -1)
    loops.unextend()
    assert (fit_loop.max_steps, fit_loop.max_epochs) == limits


def test_a_callback_whose_state_is_no_plain_data_is_left_as_it_is(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(ModelCheckpoint):
        def state_dict(self) -> dict[str, Any]:
            return {"opaque": object()}

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(Strange())
    try:
        assert Callbacks(trainer, LogOnce()).state_dict()["states"] == {}
        assert "is no plain data: a rollback leaves that callback as it is" in caplog.text
    finally:
        callbacks.pop()


def test_a_model_that_was_deleted_is_forgotten_with_its_score(trainer: Trainer, tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=2)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(kept)
    try:
        for score in (1.0, 2.0):
            (tmp_path / f"{score}.ckpt").touch()
            kept.best_k_models[str(tmp_path / f"{score}.ckpt")] = torch.tensor(score)
        kept.best_model_path, kept.kth_best_model_path = map(str, (tmp_path / "1.0.ckpt", tmp_path / "2.0.ckpt"))
        mine = Callbacks(trainer, LogOnce())
        state = mine.state_dict()
        (tmp_path / "1.0.ckpt").unlink()
        mine.load_state_dict(state)
        assert list(kept.best_k_models) == [kept.best_model_path] == [kept.kth_best_model_path]
        assert (kept.best_model_score, kept.kth_value) == (torch.tensor(2.0), torch.tensor(2.0))
    finally:
        callbacks.pop()
