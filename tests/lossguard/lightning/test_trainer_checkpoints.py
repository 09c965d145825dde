import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import DDPStrategy

from lossguard.lightning import Lossguard
from lossguard.lightning.framework import Trainer
from lossguard.lightning.trainer_checkpoints import Callbacks, Loops
from lossguard.lightning.watch import Watch
from lossguard.torch import checkpoints_in
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from tests.lossguard.lightning.fitting import LoggingRun, Module, assert_same, break_weight, filtered, fit, shuffled
from tests.lossguard.scripted import rollback

pytestmark = pytest.mark.system


def guard(run: LoggingRun, **options: Any) -> Lossguard:
    return Lossguard(run, **{"every": 5, "store": "lightning", "skip_samples": "once", **options})


def test_a_rollback_to_a_checkpoint_of_lightning_is_exact_and_its_branch_is_moved_aside(tmp_path: Path) -> None:
    run = LoggingRun({31: rollback(1, rewind_to=13, skip_from=14, skip_to=22)})
    settings: dict[str, Any] = {"max_steps": 40, "accumulate_grad_batches": 2, "validation": True}
    module = Module(before_step=break_weight(at=23))
    guarded = fit(tmp_path, shuffled(44), guard(run), module=module, **settings)
    plain = fit(tmp_path, filtered(44, [(14, 22)], steps=40, accumulate=2), **settings)
    assert run.recorded[1][:3] == ("rollback", 10, 1)
    assert_same(guarded, plain)
    assert guarded.events[-1] == plain.events[-1]
    assert run.restorable == list(checkpoints_in(tmp_path / "lossguard")) == list(range(0, 41, 5))
    discarded = checkpoints_in(tmp_path / "lossguard" / "discarded")
    assert list(discarded) == [15, 20]
    damaged = checkpoints_in(tmp_path / "lossguard" / "uncertified")
    assert list(damaged) == [25]
    weights = torch.load(damaged[25] / "trainer.ckpt", weights_only=True)["state_dict"]
    assert any(each.isnan().any() for each in weights.values())


def test_a_run_continues_from_it_with_and_without_us(tmp_path: Path) -> None:
    def send_signal(module: Module) -> None:
        if module.trainer.global_step == 21:
            signal.raise_signal(signal.SIGTERM)

    settings: dict[str, Any] = {"max_epochs": 6}
    plain = fit(tmp_path, shuffled(44), **settings)
    module = Module(before_step=send_signal)
    first = fit(tmp_path, shuffled(44), guard(LoggingRun()), module=module, **settings)
    assert max(first.seen) == 21  # two epochs of 11 steps are done
    alone = fit(tmp_path, shuffled(44), checkpoint=tmp_path / "lossguard/step-000000022/trainer.ckpt", **settings)
    again = fit(tmp_path, shuffled(44), guard(run := LoggingRun()), **settings)
    assert run.recorded[0][:2] == ("resume", 22)
    again.seen = first.seen | again.seen
    assert_same(again, plain)
    assert again.events[-3:] == plain.events[-3:]
    assert [each[2:] for seen in alone.seen.values() for each in seen] == [
        each[2:] for step, seen in plain.seen.items() for each in seen if step >= 22
    ]


def test_damaged_and_half_written_checkpoints_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = fit(tmp_path, shuffled(40), max_steps=16)
    fit(tmp_path, shuffled(40), guard(LoggingRun()), max_steps=16)
    for step, name in ((16, "trainer.ckpt"), (15, "lossguard-0.pt")):
        file = tmp_path / "lossguard" / f"step-{step:09d}" / name
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    half = tmp_path / "lossguard" / "step-000000018"
    half.mkdir()
    (half / "trainer.ckpt").write_bytes(b"half")
    again = fit(tmp_path, shuffled(40), guard(run := LoggingRun()), max_steps=16)
    assert run.recorded[0][:2] == ("resume", 10)
    assert all(f"{name} is damaged" in caplog.text for name in ("trainer.ckpt", "lossguard-0.pt"))
    plain.seen = {step: seen for step, seen in plain.seen.items() if step >= 10}
    assert_same(again, plain)


def test_a_model_checkpoint_in_the_same_folder_neither_deletes_ours_nor_counts_as_one(tmp_path: Path) -> None:
    theirs = ModelCheckpoint(tmp_path / "lossguard", monitor="val_loss", save_top_k=1, every_n_epochs=1)
    run = LoggingRun()
    settings: dict[str, Any] = {"max_epochs": 5, "validation": True, "enable_checkpointing": True}
    fit(tmp_path, shuffled(40), guard(run), theirs, **settings)
    assert run.restorable == [*range(0, 51, 5)]
    assert [path.name for path in (tmp_path / "lossguard").glob("*.ckpt")] == [Path(theirs.best_model_path).name]


def test_what_hooks_of_the_module_add_is_restored_with_it(tmp_path: Path) -> None:
    class Counting(Module):
        count = 0

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.count += 1

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["count"] = self.count

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.count = checkpoint["count"]

    run = LoggingRun({12: rollback(rewind_to=5)})
    module = Counting()
    fit(tmp_path, shuffled(40), guard(run), module=module, max_steps=20)
    assert (run.recorded[1][1], module.count) == (5, 20)


def test_a_file_that_could_run_code_is_no_checkpoint_and_the_training_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Opaque(Module):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["path"] = LoggingRun

    run = LoggingRun()
    module = fit(tmp_path, shuffled(40), guard(run), module=Opaque(), max_steps=8)
    assert (len(module.seen), run.restorable) == (8, [])
    assert "contains more than tensors and plain values" in caplog.text
    assert not list((tmp_path / "lossguard").glob("*/trainer.ckpt"))


def test_a_plugin_that_writes_in_the_background_is_refused(tmp_path: Path) -> None:
    module = Module()
    with pytest.raises(ConfigurationError, match="store='lightning' with AsyncCheckpointIO cannot be guarded"):
        fit(tmp_path, shuffled(40), guard(LoggingRun()), module=module, max_steps=3, plugins=[AsyncCheckpointIO()])
    assert module.seen == {}


@pytest.mark.parametrize("store", ["lightning", "lossguard"])
def test_checkpoints_at_a_url_are_restored_exactly(tmp_path: Path, store: str) -> None:
    run = LoggingRun({19: rollback(1, rewind_to=10, skip_from=10, skip_to=14)})
    url = f"memory://{tmp_path.name}-{store}/run"
    watching = guard(run, store=store, directory=url)
    module = Module(before_step=lambda module: watching.controller.checkpoints.settle(True))  # type: ignore[union-attr]
    guarded = fit(tmp_path, shuffled(44), watching, module=module, max_steps=20)
    assert_same(guarded, fit(tmp_path, filtered(44, [(10, 14)], steps=20, accumulate=1), max_steps=20))
    assert run.recorded[1][:3] == ("rollback", 10, 1)
    assert run.restorable == list(checkpoints_in(url, downloads=tmp_path)) == [0, 5, 10, 15, 20]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """After 12 steps of 2 micro-batches, 6 to an epoch, with a validation at the end of each."""
    module = fit(tmp_path_factory.mktemp("fit"), shuffled(44), max_steps=12, accumulate_grad_batches=2, validation=True)
    return module.trainer


def test_the_private_names_that_are_used_have_the_known_meaning(trainer: Trainer) -> None:
    """If one has gone after an upgrade, the failure names it."""
    fit_loop: Any = trainer.fit_loop
    loop = fit_loop.epoch_loop
    steps = loop.automatic_optimization.optim_progress
    names = ("ready", "started", "processed", "completed")
    for progress, counts in ((fit_loop.epoch_progress, (2, 2)), (loop.batch_progress, (11, 22))):
        assert [vars(each) for each in (progress.current, progress.total)] == [dict.fromkeys(names, n) for n in counts]
    assert steps.optimizer_steps == trainer.global_step == 12
    assert steps.state_dict()["optimizer"]["step"]["total"]["completed"] == 12
    assert loop.scheduler_progress.state_dict()["total"]["completed"] == 12
    assert loop._batches_that_stepped == 12
    connector = trainer._logger_connector
    assert trainer.callback_metrics is connector._callback_metrics
    assert set(connector._callback_metrics) == {"train_loss", "val_loss"}
    loop._results.reset()
    assert ModelCheckpoint()._last_global_step_saved == 0
    assert [DDPStrategy(start_method=method)._start_method for method in ("popen", "spawn")] == ["popen", "spawn"]


def test_data_fetcher_counts_what_it_fetched() -> None:
    module = Module()
    fetched: list[tuple[int, int]] = []

    def before_step(module: Module) -> None:
        fetcher: Any = module.trainer.fit_loop._data_fetcher
        fetched.append((fetcher.fetched, module.trainer.fit_loop.epoch_loop.batch_idx))

    module.before_step = before_step
    fit(Path(), shuffled(12), module=module, max_epochs=2)
    assert fetched == [(1, 0), (2, 1), (3, 2)] * 2


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


def test_the_time_that_a_fit_has_taken_does_not_go_back_with_it(trainer: Trainer) -> None:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    timer = Timer(duration={"hours": 24})
    callbacks.append(timer)
    try:
        timer._offset = 7
        saving, resumed = Callbacks(trainer, LogOnce()), Callbacks(trainer, LogOnce())
        saved = saving.state_dict()
        timer._offset = 0
        saving.load_state_dict(saved)
        assert timer._offset == 0, "it still runs: what it had taken would count twice"
        resumed.load_state_dict(saved)
        assert timer._offset >= 7, "another process begins at that of the checkpoint"
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


def test_what_was_written_after_an_older_checkpoint_to_which_a_restart_goes_back_is_moved_aside(
    trainer: Trainer, tmp_path: Path
) -> None:
    kept = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=2)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(kept)
    try:
        saving, states = Callbacks(trainer, LogOnce()), []
        for score in (2.0, 1.0):
            (tmp_path / f"{score}.ckpt").touch()
            kept.best_k_models = kept.best_k_models | {str(tmp_path / f"{score}.ckpt"): torch.tensor(score)}
            kept.best_model_path = kept.last_model_path = str(tmp_path / f"{score}.ckpt")
            states.append(saving.state_dict() | {"time": math.inf})
        older, newer = states
        resumed = Callbacks(trainer, LogOnce())
        resumed.load_state_dict(newer)
        assert len(kept.best_k_models) == len(list(tmp_path.glob("*.ckpt"))) == 2
        resumed.load_state_dict(older)
        assert [str(path) for path in tmp_path.glob("*.ckpt")] == [kept.best_model_path] == [kept.last_model_path]
        assert (tmp_path / "discarded" / "1.0.ckpt").exists()
    finally:
        callbacks.pop()
