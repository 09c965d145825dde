from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer

from lossguard.hf import guard, watch
from tests.lossguard.hf.small import LoggedRun, Rows, trainer_in

pytestmark = pytest.mark.slow


class OwnBatches(Trainer):
    def _prepare_inputs(self, inputs: Any) -> Any:
        return super()._prepare_inputs(inputs)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size begins the training anew"),
        ({"cls": OwnBatches}, "OwnBatches makes its own batches"),
    ],
)
def test_what_could_not_be_restored_is_refused_in_a_sentence(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    trainer = trainer_in(tmp_path, Rows(40), **options)
    with pytest.raises(ValueError, match=why):
        guard(trainer, LoggedRun())
    watch(trainer, LoggedRun())


@pytest.mark.parametrize(
    ("argument", "value", "why"),
    [
        ("fsdp", "full_shard", "fsdp is set, and the model would run without it"),
        ("_n_gpu", 2, "DataParallel has not been tested"),
        ("dataloader_in_order", False, "in no fixed order"),
    ],
)
def test_a_strategy_that_is_not_what_it_says_or_was_never_tested_is_refused(
    tmp_path: Path, argument: str, value: Any, why: str
) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    vars(trainer.args)[argument] = value
    with pytest.raises(ValueError, match=why):
        guard(trainer, LoggedRun())


def test_deepspeed_is_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="DeepSpeed"):
        guard(trainer, LoggedRun())


def test_what_is_no_trainer_is_one_sentence(tmp_path: Path) -> None:
    trainer, run = trainer_in(tmp_path, Rows(40)), LoggedRun()
    for call in (guard, watch):
        with pytest.raises(TypeError, match=r"must be a transformers\.Trainer, not a LoggedRun"):
            call(run, trainer)  # type: ignore[arg-type]


def test_the_trainers_own_checkpoints_are_not_in_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory=4 needs store='lossguard'"):
        guard(trainer_in(tmp_path, Rows(40)), LoggedRun(), store="hf", memory=4)


def test_two_guards_on_one_trainer_are_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    guard(trainer, LoggedRun())
    for again in (guard, watch):
        with pytest.raises(ValueError, match="guarded or watched already"):
            again(trainer, LoggedRun())


def test_checkpoints_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lossguard").write_text("a file")
    with pytest.raises(ValueError, match="cannot hold checkpoints"):
        guard(trainer_in(tmp_path, Rows(40)), LoggedRun())


class ReadOnce(IterableDataset[dict[str, torch.Tensor]]):
    """An iterator, which cannot begin again."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        return Rows(40)[0]


def test_data_that_can_be_read_only_once_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, ReadOnce(), max_steps=5)
    guard(trainer, LoggedRun())
    with pytest.raises(ValueError, match="ReadOnce can be read only once"):
        trainer.train()
    assert trainer.trace == []
    assert "training_step" not in vars(trainer)


def test_what_is_no_run_and_a_folder_that_cannot_be_made_are_refused_in_a_sentence(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    for attach in (guard, watch):
        with pytest.raises(
            TypeError, match=r"run='gpt' must be what lossguard\.init\(project=\.\.\) returns, not a str"
        ):
            attach(trainer, "gpt")  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    trainer.args.output_dir = str(tmp_path / "file" / "out")
    for store in ("lossguard", "hf"):
        with pytest.raises(ValueError, match=r"out.* cannot hold checkpoints: Not a directory"):
            guard(trainer, LoggedRun(), store=store)
