import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lossguard.lightning import Lossguard
from lossguard.torch import checkpoints_in
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.lightning.fitting import LoggingRun, Module, assert_same, break_weight, filtered, fit, shuffled
from tests.lossguard.scripted import rollback

pytestmark = pytest.mark.slow


def guard(run: LoggingRun, **options: Any) -> Lossguard:
    return Lossguard(run, **{"every": 5, "store": "lightning", **options})


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
    assert list(discarded) == [15, 20, 25]
    weights = torch.load(discarded[25] / "trainer.ckpt", weights_only=True)["state_dict"]
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
