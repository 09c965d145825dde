"""A Hugging Face Trainer, plain and guarded: GPT-2 with dropout, two micro-batches a step."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import datasets  # type: ignore[import-untyped]
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import lossguard
from benchmarks.frameworks.job import ACCUMULATE, BATCH_SIZE, EVERY, NUM_RANKS, Job, Result, Trace, checksum, samples
from examples.laptop import CONTEXT

NUM_SAMPLES = 4_800 * NUM_RANKS
"""A plain Trainer without some batches cannot end its epochs with a short step, so that there is none."""


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, rows_NT: torch.Tensor) -> None:
        self.rows_NT = rows_NT

    def __len__(self) -> int:
        return len(self.rows_NT)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows_NT[index], "labels": self.rows_NT[index]}


class Traced(Trainer):
    """Notes what it sees, and plants the faults."""

    trace: Trace
    micro: list[tuple[int, str]]
    batch: Any = staticmethod(lambda: None)
    """The index of the batch in use."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        rows_BT = inputs["input_ids"]
        if (batch := self.batch()) is not None:
            inputs["labels"] = torch.cat((rows_BT[:, :1], self.trace.targets(rows_BT, batch)), dim=1)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.micro.append((checksum(rows_BT), float(loss).hex()))
        return loss


class Steps(TrainerCallback):
    """The boundaries of steps, for the trace."""

    def __init__(self, trainer: Traced) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.micro = []
        model: Any = self.trainer.model
        self.trainer.trace.strike(state.global_step, model)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.trace.step_done(state.global_step - 1, self.trainer.micro)


class Filtered(Traced):
    """A plain Trainer whose loader leaves out batches; it needs more epochs for its steps."""

    job: Job

    def get_train_dataloader(self) -> Any:
        return LeavingOut(super().get_train_dataloader(), self)

    def set_initial_training_values(self, args: Any, dataloader: Any, *others: Any) -> Any:
        values: list[Any] = list(super().set_initial_training_values(args, dataloader, *others))
        values[0] = 2 * values[0] + 1
        return tuple(values)


class LeavingOut:
    def __init__(self, loader: Any, trainer: Filtered) -> None:
        self.loader, self.dataset, self.trainer = loader, loader.dataset, trainer
        self.epoch = 0
        self.given: deque[int] = deque()
        trainer.batch = self.given.popleft

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        ledger = lossguard.Ledger(lossguard.Skip(*skip) for skip in self.trainer.job.skips)
        for number, micro_batch in enumerate(self.loader):
            batch = (self.epoch * len(self.loader) + number) // ACCUMULATE
            if ledger.next_free(batch) == batch:
                self.given.append(batch)
                yield micro_batch


def data_of(job: Job) -> tuple[Any, dict[str, Any]]:
    """The training data, and the arguments that are its own."""
    rows = Rows(samples()[:NUM_SAMPLES])
    if job.data == "streaming":
        columns = [
            {name: row.tolist() for name, row in each.items()} for each in map(rows.__getitem__, range(len(rows)))
        ]
        stream = datasets.Dataset.from_list(columns).with_format("torch").to_iterable_dataset(num_shards=4)
        return stream.shuffle(seed=job.seed, buffer_size=500), {}
    return rows, {"dataloader_num_workers": 2} if job.data == "workers" else {}


def train(job: Job) -> Result:
    set_seed(job.seed)
    size: dict[str, Any] = {"vocab_size": 256, "n_positions": CONTEXT + 1, "n_head": 4}
    size |= {"n_embd": job.size.width, "n_layer": job.size.layers}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    rows, options = data_of(job)
    arguments = TrainingArguments(
        output_dir=str(job.folder / f"trainer-{job.guarded}-{job.seed}"),
        max_steps=job.steps,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=ACCUMULATE,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        weight_decay=0.1,
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        ddp_backend="gloo" if NUM_RANKS > 1 else None,
        disable_tqdm=True,
        seed=job.seed,
        **options,
    )
    kind = Filtered if job.faults and not job.guarded else Traced
    trainer: Any = kind(model=model, args=arguments, train_dataset=rows)
    trainer.trace, trainer.job = Trace(job), job
    trainer.add_callback(Steps(trainer))
    run = None
    if job.guarded:
        run = lossguard.init(project="frameworks", directory=job.folder / "spool", mode=job.mode, run_id=job.run_id)
        trainer.trace.result.run_id = run.id
        trainer.batch = lambda: run.batch_index
        lossguard.hf.guard(trainer, run, every=EVERY).tell = lambda sentence: None
    trainer.train()
    if run is not None:
        run.finish()
    return trainer.trace.finish(  # type: ignore[no-any-return]
        model, trainer.optimizer, trainer.lr_scheduler, logits=lambda inputs: model(input_ids=inputs).logits
    )
