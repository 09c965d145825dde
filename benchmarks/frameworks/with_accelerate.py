"""A loop on accelerate, plain and guarded."""

from itertools import count
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader

import lossguard
from benchmarks.frameworks.job import ACCUMULATE, BATCH_SIZE, EVERY, Job, Result, Trace, checksum, new_model, samples
from examples.laptop import loss_of
from lossguard.torch import Batches, Checkpoints, over_ranks


class Training:
    """The prepared objects, and one step."""

    def __init__(self, job: Job) -> None:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        set_seed(job.seed)
        configuration = DataLoaderConfiguration(use_seedable_sampler=True)
        self.accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=ACCUMULATE, dataloader_config=configuration
        )
        model = new_model(job.size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=job.steps + 1)
        loader: DataLoader[torch.Tensor] = DataLoader(samples(), batch_size=BATCH_SIZE, shuffle=True)  # type: ignore[arg-type]
        prepared: Any = self.accelerator.prepare(model, optimizer, schedule, loader)
        self.model, self.optimizer, self.schedule, self.loader = prepared
        self.trace = Trace(job)

    def micro_step(self, rows: torch.Tensor, batch: int) -> tuple[torch.Tensor, Any]:
        """The loss of a micro-batch, and the grad norm where a step ends."""
        norm = None
        with self.accelerator.accumulate(self.model):
            loss = loss_of(self.model(rows[:, :-1]), self.trace.targets(rows, batch))
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        return loss.detach(), norm


def train(job: Job) -> Result:
    training = Training(job)
    (_train_guarded if job.guarded else _train_plain)(training, job)
    return training.trace.finish(training.model, training.optimizer, training.schedule)


def _train_plain(training: Training, job: Job) -> None:
    ledger = lossguard.Ledger(lossguard.Skip(*skip) for skip in job.skips)
    length = len(training.loader)
    step = batch = 0
    for _ in count():
        micro: list[tuple[int, str]] = []
        for number, rows in enumerate(training.loader, 1):
            is_used = ledger.next_free(batch) == batch
            if is_used:
                micro.append((checksum(rows), float(training.micro_step(rows, batch)[0]).hex()))
            if number % ACCUMULATE == 0 or number == length:
                batch += 1
                if is_used:
                    training.trace.step_done(step, micro)
                    step, micro = step + 1, []
                if step == job.steps:
                    return


def _train_guarded(training: Training, job: Job) -> None:
    run = lossguard.init(project="frameworks", directory=job.folder / "spool", mode=job.mode, run_id=job.run_id)
    training.trace.result.run_id = run.id
    parts = {"model": training.model, "optimizer": training.optimizer, "scheduler": training.schedule}
    guard = lossguard.Guard(run, checkpoints=Checkpoints(job.folder / run.id, **parts), every=EVERY)
    guard.tell = lambda sentence: None
    for step, micro_batches in guard.steps(Batches(training.loader, accumulate=ACCUMULATE), until=job.steps):
        training.trace.strike(step, training.model)
        losses, micro = [], []
        for rows in micro_batches:
            loss, norm = training.micro_step(rows, run.batch_index or 0)
            losses.append(loss)
            micro.append((checksum(rows), float(loss).hex()))
        mean_loss, grad_norm = over_ranks(losses, norm)
        run.log(step, loss=mean_loss, grad_norm=grad_norm, lr=training.schedule.get_last_lr()[0])
        training.trace.step_done(step, micro)
    run.finish()
