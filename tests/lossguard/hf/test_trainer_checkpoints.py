import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lossguard.hf import guard
from lossguard.vocabulary.wording import size
from tests.lossguard.hf import small
from tests.lossguard.hf.small import LENGTH, InOrder, LoggedRun, Rows, Traced, filtered, state_of, trainer_in
from tests.lossguard.scripted import rollback

trainer_utils: Any = transformers.trainer_utils
pytestmark = pytest.mark.system


guarded = partial(small.guarded, store="hf", keep=20)


def checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*checkpoint-*"))


def test_a_rollback_to_the_trainers_own_checkpoint_is_exact_and_the_discarded_ones_are_not_the_last(
    tmp_path: Path,
) -> None:
    rows = Rows(200)
    whole = trainer_in(tmp_path / "whole", rows, max_steps=50)
    whole.train()
    order = rollback(rewind_to=7, skip_from=8, skip_to=16)
    trainer, run = guarded(tmp_path / "one", rows, {15: order}, max_steps=23)
    trainer.train()
    plain = trainer_in(tmp_path / "plain", filtered(whole, 23, range(8, 16), rows), max_steps=23, cls=InOrder)
    plain.train()
    assert trainer.live() == plain.live()
    assert state_of(trainer) == state_of(plain)
    names = checkpoints_in(tmp_path / "one")
    assert names == [f"checkpoint-{step}" for step in (0, 10, 15, 20, 23, 5)]
    assert checkpoints_in(tmp_path / "one" / "discarded") == ["checkpoint-10"]
    assert trainer_utils.get_last_checkpoint(str(tmp_path / "one")).endswith("checkpoint-23")
    assert run.restorable == [0, 5, 10, 15, 20, 23]
    assert run.column("tokens")[-1] == 23 * 4 * LENGTH


def test_a_run_continues_from_it_with_and_without_a_guard(tmp_path: Path) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=20, lr_scheduler_type="constant")
    plain.train()
    first, _ = guarded(tmp_path / "one", Rows(46), max_steps=13, lr_scheduler_type="constant")
    first.train()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for folder, is_guarded in (("one", True), ("two", False)):
        options: dict[str, Any] = {"max_steps": 20, "lr_scheduler_type": "constant"}
        again = (
            guarded(tmp_path / folder, Rows(46), **options)[0]
            if is_guarded
            else trainer_in(tmp_path / folder, Rows(46), **options)
        )
        again.train(resume_from_checkpoint=True)
        assert first.trace + again.trace == plain.trace
        assert state_of(again) == state_of(plain)


def test_damaged_and_incomplete_folders_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=16)
    plain.train()
    first, _ = guarded(tmp_path / "one", Rows(46), max_steps=16)
    first.train()
    weights = tmp_path / "one" / "checkpoint-16" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    half = tmp_path / "one" / "checkpoint-18"
    half.mkdir()
    shutil.copy(tmp_path / "one" / "checkpoint-15" / "model.safetensors", half)
    again, _ = guarded(tmp_path / "one", Rows(46), max_steps=16)
    assert "incomplete-checkpoint-18" in checkpoints_in(tmp_path / "one")
    again.train()  # the damaged one looks like the end of the run
    assert "model.safetensors is damaged" in caplog.text
    assert again.trace == plain.trace[-2:]
    assert state_of(again) == state_of(plain)


def test_the_limit_of_the_trainer_deletes_no_checkpoint_that_a_rollback_may_need(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 1, "max_steps": 22}
    trainer, run = guarded(tmp_path, Rows(46), keep=2, **options)
    trainer.train()
    assert trainer.args.save_total_limit == run.config["training_arguments"]["save_total_limit"] == 1
    arguments = torch.load(tmp_path / "checkpoint-22" / "training_args.bin", weights_only=False)
    assert (arguments.save_total_limit, arguments.ignore_data_skip) == (1, False)
    assert run.restorable == [0, 10, 15, 20, 22]  # the newest two, and fewer of the older ones
    assert checkpoints_in(tmp_path) == sorted(f"checkpoint-{step}" for step in (0, 10, 15, 16, 20, 22))


def test_as_many_as_the_limit_of_the_trainer_says_stay_by_default(tmp_path: Path) -> None:
    trainer, run = trainer_in(tmp_path, Rows(46), save_total_limit=3, max_steps=16), LoggedRun()
    guard(trainer, run, every=2, store="hf")
    trainer.train()
    assert run.restorable == [12, 14, 16]
    num_bytes = sum(4 * each.numel() for each in trainer.model.parameters())
    assert run.announced == [f"a checkpoint every 2 steps, 3 kept (~{size(3 * 3 * num_bytes)})"]


def test_a_best_model_that_was_deleted_on_the_discarded_branch_is_looked_for_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The evaluations give 2, 5, 1 and, after the rollback, 4 and 3: the limit has deleted the model of 2."""
    losses = iter([2.0, 5.0, 1.0, 4.0, 3.0])

    class Scripted(Traced):
        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            metrics = {"eval_loss": next(losses)}
            self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    options: dict[str, Any] = {
        "max_steps": 16, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4,
        "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False,
        "save_total_limit": 1, "cls": Scripted,
    }  # fmt: skip
    trainer, _ = small.guarded(tmp_path, Rows(46), {14: rollback(rewind_to=8)}, every=8, **options)
    trainer.train()
    assert caplog.text.count("checkpoint-4 was deleted: the best model is looked for anew from step 8 on") == 1
    state = trainer.state
    assert (state.best_metric, state.best_global_step) == (3.0, 16)
    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-16")


def test_another_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="store='disk' must be 'lossguard' or 'hf'"):
        guard(trainer_in(tmp_path, Rows(46)), LoggedRun(), store="disk")
    with pytest.raises(ValueError, match="memory=3 needs store='lossguard'"):
        guard(trainer_in(tmp_path, Rows(46)), LoggedRun(), store="hf", memory=3)
    with pytest.raises(ValueError, match="directory='s3://b/run' needs store='lossguard': the Trainer writes into"):
        guard(trainer_in(tmp_path, Rows(46)), LoggedRun(), store="hf", directory="s3://b/run")
    with pytest.raises(ValueError, match="save_only_model"):
        guarded(tmp_path, Rows(46), save_only_model=True)


def test_an_evaluation_after_the_trainers_own_checkpoint_of_a_step_belongs_to_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 12, "eval_strategy": "epoch", "max_steps": 16}
    plain = trainer_in(tmp_path / "plain", Rows(46), **options)  # an epoch has 12 steps
    plain.train()
    trainer, run = guarded(tmp_path, Rows(46), {15: rollback(rewind_to=12)}, every=12, **options)
    trainer.train()
    assert run.recorded[1][1] == 12
    assert trainer.live() == plain.live()
    assert state_of(trainer) == state_of(plain)


def test_a_disk_that_is_full_leaves_no_half_written_folder(tmp_path: Path) -> None:
    trainer, run = guarded(tmp_path, Rows(46), max_steps=12)

    def write_half(*_: Any) -> None:
        (tmp_path / f"checkpoint-{trainer.state.global_step}" / "optimizer.pt").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    trainer._save_optimizer_and_scheduler = write_half
    trainer.train()
    assert [step for step, _ in run.logged] == list(range(12))
    assert (run.restorable, checkpoints_in(tmp_path)) == ([], [])
