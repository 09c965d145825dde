"""A tiny Trainer with dropout, whose every micro-batch leaves a trace, and what two trainings have in common."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler, Subset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import lossguard
from lossguard import Order
from lossguard.hf import guard
from lossguard.vocabulary.protocol import plain
from tests.lossguard.scripted import ScriptedRun

VOCABULARY, LENGTH = 32, 12


class LoggedRun(ScriptedRun):
    """A scripted run that keeps the metrics of each step."""

    def __init__(self, orders: dict[int, Order] | None = None) -> None:
        super().__init__(orders)
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.batches: list[int | None] = []
        """The batch of each logged step, as the guard says."""
        self.config: dict[str, Any] = {}
        self.total_steps: int | None = None

    def log(self, /, step: int, **metrics: Any) -> None:
        self.batches.append(self.batch_index)
        self.logged.append((step, {name: plain(value) for name, value in metrics.items() if value is not None}))

    def add_config(self, config: Any, *, total_steps: int | None = None) -> None:
        self.config, self.total_steps = config, total_steps

    def column(self, name: str) -> list[Any]:
        """One metric of every logged step."""
        return [metrics.get(name) for _, metrics in self.logged]


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Row i begins with the digits of i, and is random otherwise."""

    def __init__(self, num: int, *, lengths: Sequence[int] = (LENGTH,)) -> None:
        self.num, self.lengths = num, lengths

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(index))
        ids[0], ids[1] = divmod(index, VOCABULARY)
        labels = ids.clone()
        labels[self.lengths[index % len(self.lengths)] :] = -100
        return {"input_ids": ids, "labels": labels}


def rows_in(ids: torch.Tensor) -> list[int]:
    """The rows of a micro-batch."""
    return [int(first * VOCABULARY + second) for first, second in ids[:, :2].tolist()]


def gpt2(dropout: float = 0.1) -> GPT2LMHeadModel:
    rates: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0))


class Traced(Trainer):
    """Keeps the step, the rows and the loss of every micro-batch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.trace: list[tuple[int, list[int], float]] = []

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.trace.append((self.state.global_step, rows_in(inputs["input_ids"]), loss.item()))
        return loss

    def live(self) -> dict[int, list[tuple[list[int], float]]]:
        """Of every step, what it was trained on the last time, and with which losses."""
        taken: dict[int, list[tuple[list[int], float]]] = {}
        before = None
        for step, rows, loss in self.trace:
            if step != before:
                taken[step] = []
            before = step
            taken[step].append((rows, loss))
        return taken


class Kill(TrainerCallback):
    """Kills the process at the end of step 17."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 18:
            os.kill(os.getpid(), signal.SIGKILL)


class InOrder(Traced):
    """Takes the rows one after the other."""

    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        data: Any = self.train_dataset
        return SequentialSampler(data)


def trainer_in(
    folder: Path, data: Any, *, callbacks: Any = (), cls: type[Trainer] = Traced, model: Any = None, **arguments: Any
) -> Any:
    """A Trainer on `data`, seeded."""
    set_seed(7)
    chosen: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.1,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    settings = TrainingArguments(output_dir=str(folder), **(chosen | arguments))
    return cls(
        model=gpt2() if model is None else model,
        args=settings,
        train_dataset=data,
        eval_dataset=Rows(4),
        callbacks=list(callbacks),
    )


def guarded(
    folder: Path,
    data: Any,
    orders: Any = None,
    *,
    every: int = 5,
    store: str = "lossguard",
    keep: int | None = None,
    resume_from: int | None = None,
    **options: Any,
) -> tuple[Any, LoggedRun]:
    """A Trainer under a guard, and its run."""
    trainer, run = trainer_in(folder, data, **options), LoggedRun(orders)
    guard(trainer, run, every=every, store=store, keep=keep, resume_from=resume_from)
    return trainer, run


def train_offline(folder: Path, **options: Any) -> Any:
    """A guarded training whose run is recorded in `folder` alone."""
    trainer = trainer_in(folder, Rows(46), max_steps=30, **options)
    run = lossguard.init("project", mode="offline", directory=folder / "runs", run_id="r")
    guard(trainer, run, every=5)
    trainer.train()
    run.finish()
    return trainer


def filtered(trainer: Any, num_steps: int, skipped: range, rows: Rows) -> Any:
    """The rows that `trainer` (a plain one) used, without those of the skipped batches, in the order of their use."""
    used = trainer.live()
    kept = [step for step in sorted(used) if step not in skipped][:num_steps]
    return Subset(rows, [row for step in kept for micro_batch, _ in used[step] for row in micro_batch])


def state_of(trainer: Any) -> list[Any]:
    """Weights, optimizer, schedule and random numbers, as comparable values."""
    return [
        {name: value.tolist() for name, value in trainer.model.state_dict().items()},
        str(trainer.optimizer.state_dict()),
        trainer.lr_scheduler.state_dict(),
        torch.get_rng_state().tolist(),
    ]
