"""What a guard takes: kinds of trainers and of data, each against the training that never used the skipped batches."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainerCallback, set_seed

import lossguard
from lossguard import Skip
from lossguard.hf import guard, watch
from lossguard.torch import checkpoints_in, learning_rate_remedy
from tests.lossguard.hf.small import (
    LENGTH,
    VOCABULARY,
    LoggedRun,
    Rows,
    Traced,
    gpt2,
    state_of,
    train_offline,
    trainer_in,
)
from tests.lossguard.scripted import rollback

pytestmark = pytest.mark.slow


def both(make: Callable[[Path], Any], folder: Path, *, every: int = 5) -> tuple[Any, Any]:
    """A training that is rolled back from step 14 past batches 8 to 15, and one that skips them from the start."""
    trainer = make(folder / "one")
    guard(trainer, LoggedRun({15: rollback(rewind_to=7, skip_from=8, skip_to=16)}), every=every)
    trainer.train()
    reference = make(folder / "reference")
    guard(reference, LoggedRun(), every=100, skips=[Skip(8, 16)])
    reference.train()
    assert state_of(trainer) == state_of(reference)
    return trainer, reference


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, num: int) -> None:
        self.rows = Rows(num)

    def __iter__(self) -> Any:
        return (self.rows[index] for index in range(len(self.rows)))


@pytest.mark.system
@pytest.mark.parametrize(
    ("data", "options"),
    [
        (Stream(46), {"max_steps": 30}),
        (Rows(46), {"max_steps": 30, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}),
        (Rows(200), {"max_steps": 30, "accelerator_config": {"use_seedable_sampler": False}}),
        (Rows(46), {"max_steps": 30, "dataloader_drop_last": True}),
        (Rows(46), {"max_steps": 30, "torch_compile": True, "torch_compile_backend": "eager"}),
    ],
    ids=["a-stream-of-unknown-length", "workers", "an-order-of-the-global-generator", "drop-last", "torch-compile"],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile makes an error of it
def test_every_kind_of_data_is_taken(tmp_path: Path, data: Any, options: dict[str, Any]) -> None:
    trainer, reference = both(lambda folder: trainer_in(folder, data, **options), tmp_path)
    assert trainer.live() == reference.live()
    assert trainer.state.global_step == 30
    for each in (trainer, reference):  # the garbage collection would wait 5 s for each worker that persists
        each.callback_handler.train_dataloader.loader.base_dataloader._iterator = None


@pytest.mark.system
def test_rows_that_are_grouped_by_length_keep_their_order(tmp_path: Path) -> None:
    """An epoch that the rolled back run had begun keeps the order that it had, so this is about a single one."""

    class Grouped(Traced):
        def _get_train_sampler(self, *arguments: Any) -> Any:
            from transformers.trainer_pt_utils import LengthGroupedSampler

            return LengthGroupedSampler(4, lengths=[2 + index % 9 for index in range(200)])

    trainer, reference = both(lambda folder: trainer_in(folder, Rows(200), max_steps=30, cls=Grouped), tmp_path)
    assert trainer.live() == reference.live()


@pytest.mark.system
def test_checkpoints_may_lie_at_a_url(tmp_path: Path) -> None:
    trainer, run, url = trainer_in(tmp_path, Rows(46), max_steps=6), LoggedRun(), f"memory://{tmp_path.name}/run"
    guard(trainer, run, every=6, directory=url)
    trainer.train()
    assert list(checkpoints_in(url, downloads=tmp_path)) == run.restorable
    assert run.restorable[-1] == 6
    assert not (tmp_path / "lossguard").exists()


class Pairs(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: Rows(100)[index]["input_ids"] for name in ("input_ids", "labels")}


@pytest.mark.system
def test_a_seq2seq_trainer_is_taken(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    def make(folder: Path) -> Any:
        set_seed(7)
        sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        sizes |= {"vocab_size": VOCABULARY, "decoder_start_token_id": 0}
        model = T5ForConditionalGeneration(T5Config(**sizes))
        arguments = Seq2SeqTrainingArguments(
            str(folder), max_steps=24, save_strategy="no", report_to=[], use_cpu=True, gradient_accumulation_steps=2,
            per_device_train_batch_size=2, disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        return Seq2SeqTrainer(model=model, args=arguments, train_dataset=Pairs())

    both(make, tmp_path)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_a_low_rank_adapter_of_peft_is_taken(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")

    def make(folder: Path) -> Any:
        set_seed(7)
        lora = peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=["c_attn"], fan_in_fan_out=True)
        return trainer_in(folder, Rows(100), model=peft.get_peft_model(gpt2(), lora), max_steps=24)

    trainer, reference = both(make, tmp_path)
    assert trainer.live() == reference.live()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_for_supervised_fine_tuning_of_trl_is_taken(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = [Rows(100)[index]["input_ids"].tolist() for index in range(100)]
    data = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows, "attention_mask": [[1] * LENGTH] * 100})

    def make(folder: Path) -> Any:
        set_seed(7)
        arguments = trl.SFTConfig(
            str(folder), max_steps=24, save_strategy="no", report_to=[], use_cpu=True, gradient_accumulation_steps=2,
            per_device_train_batch_size=2, disable_tqdm=True, dataloader_pin_memory=False, bf16=False,
            dataset_kwargs={"skip_prepare_dataset": True}, max_length=LENGTH, gradient_checkpointing=False,
            pad_token="!", remove_unused_columns=False,
        )  # fmt: skip
        return trl.SFTTrainer(
            model=gpt2(), args=arguments, train_dataset=data, processing_class=tokenizer(), data_collator=collate
        )

    both(make, tmp_path)


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {chr(33 + number): number for number in range(VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="!"))
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=inner, unk_token="!", pad_token="!", eos_token="!")


@pytest.mark.system
def test_a_remedy_is_registered_with_the_guard_that_is_returned(tmp_path: Path) -> None:
    trainer, run = trainer_in(tmp_path, Rows(46), max_steps=12), LoggedRun()
    run.orders = {9: rollback(rewind_to=5, remedies=("learning_rate",))}
    learning_rate_remedy(guard(trainer, run, every=5), factor=0.1, lasts=2, rewarm=0)
    trainer.train()
    earlier = dict(run.logged[:8])
    later = dict(run.logged[8:])
    assert [later[step]["lr"] / earlier[step]["lr"] for step in (5, 6, 7)] == pytest.approx([0.1, 0.1, 1.0])


KILLED = """
import sys
from pathlib import Path
from tests.lossguard.hf.small import Kill, train_offline

train_offline(Path(sys.argv[1]), callbacks=[Kill()])
"""


@pytest.mark.system
def test_a_killed_process_is_continued_bit_for_bit_by_another_with_the_same_run_id(tmp_path: Path) -> None:
    plain = trainer_in(tmp_path / "plain", Rows(46), max_steps=30)
    plain.train()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert state_of(train_offline(tmp_path)) == state_of(plain)


class OwnBatches(Trainer):
    def _prepare_inputs(self, inputs: Any) -> Any:
        return super()._prepare_inputs(inputs)


@pytest.mark.parametrize(
    ("of_trainer", "of_arguments", "why"),
    [
        ({}, {"auto_find_batch_size": True}, "auto_find_batch_size begins the training anew"),
        ({}, {"fsdp": "full_shard"}, "fsdp is set, and the model would run without it"),
        ({}, {"_n_gpu": 2}, "DataParallel has not been tested"),
        ({}, {"dataloader_in_order": False}, "in no fixed order"),
        ({}, {"optim": "galore_adamw_layerwise"}, "galore_adamw_layerwise keeps its state in hooks"),
        ({"is_deepspeed_enabled": True}, {}, "DeepSpeed"),
        ({"__class__": OwnBatches}, {}, "OwnBatches makes its own batches"),
    ],
)
def test_what_could_not_be_restored_or_was_never_tested_is_refused_in_a_sentence(
    tmp_path: Path, of_trainer: dict[str, Any], of_arguments: dict[str, Any], why: str
) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    for each, values in ((trainer, of_trainer), (trainer.args, of_arguments)):
        for name, value in values.items():
            object.__setattr__(each, name, value)
    with pytest.raises(ValueError, match=why):
        guard(trainer, LoggedRun())
    watch(trainer, LoggedRun())


class SyncRefModelCallback(TrainerCallback):
    """The callback of TRL's DPO with `sync_ref_model`, by its name."""


class Params4bit(nn.Parameter):
    """The class of quantized weights of bitsandbytes, by its name."""


def test_a_second_model_and_quantized_weights_could_not_be_restored_and_are_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    trainer.model.register_parameter("frozen", Params4bit(torch.zeros(2), requires_grad=False))
    with pytest.raises(ValueError, match="its weights are quantized, and bitsandbytes does not load them"):
        guard(trainer, LoggedRun())
    trainer = trainer_in(tmp_path, Rows(40))
    trainer.add_callback(SyncRefModelCallback())
    with pytest.raises(ValueError, match="sync_ref_model changes a second model"):
        guard(trainer, LoggedRun())


def test_what_is_no_trainer_no_run_or_no_folder_is_one_sentence(tmp_path: Path) -> None:
    trainer, run = trainer_in(tmp_path, Rows(40)), LoggedRun()
    for call in (guard, watch):
        with pytest.raises(TypeError, match=r"must be a transformers\.Trainer, not a LoggedRun"):
            call(run, trainer)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"run='gpt' must be what lossguard\.init\(project=\.\.\) returns, not a"):
            call(trainer, "gpt")  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    trainer.args.output_dir = str(tmp_path / "file" / "out")
    for store in ("lossguard", "hf"):
        with pytest.raises(ValueError, match=r"out.* cannot hold checkpoints: Not a directory"):
            guard(trainer, run, store=store)


def test_two_guards_on_one_trainer_are_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, Rows(40))
    guard(trainer, LoggedRun())
    for again in (guard, watch):
        with pytest.raises(ValueError, match="guarded or watched already"):
            again(trainer, LoggedRun())


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


def test_a_guard_that_comes_after_the_training_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_in(tmp_path, Rows(46), max_steps=2)
    trainer.train()
    with lossguard.init("project", mode="offline", directory=tmp_path / "runs") as run:
        guard(trainer, run)
    assert [each.message for each in caplog.records if each.name.startswith("lossguard")] == [
        "trainer.train() has done 2 steps before, which are not recorded: call lossguard.hf.guard or .watch first"
    ]
