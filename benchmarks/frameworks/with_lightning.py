"""A fit of Lightning, plain and guarded, with validation, ModelCheckpoint and EarlyStopping."""

import math
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

import lossguard
from benchmarks.frameworks.job import (
    ACCUMULATE,
    BATCH_SIZE,
    EVERY,
    NUM_RANKS,
    RANK,
    Job,
    Result,
    Trace,
    checksum,
    new_model,
    samples,
)
from examples.laptop import loss_of
from lossguard.lightning import Lossguard
from tests.lossguard.lightning.fitting import quiet, without


class Module(L.LightningModule):
    """Batches are known by their contents: in a plain fit they have no index."""

    def __init__(self, job: Job, run: lossguard.Run | None, batch_of: dict[int, int]) -> None:
        super().__init__()
        self.job, self.run, self.batch_of = job, run, batch_of
        self.model = new_model(job.size)
        self.trace = Trace(job)
        self.micro: list[tuple[int, str]] = []

    def training_step(self, rows: Tensor, batch_idx: int) -> Tensor:
        if batch_idx % ACCUMULATE == 0:
            self.micro = []
            self.trace.strike(self.trainer.global_step, self.model)
        batch = self.run.batch_index if self.run is not None else self.batch_of.get(checksum(rows), -1)
        loss = loss_of(self.model(rows[:, :-1]), self.trace.targets(rows, batch if batch is not None else -1))
        self.micro.append((checksum(rows), float(loss).hex()))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        if (batch_idx + 1) % ACCUMULATE == 0 or batch_idx + 1 == self.trainer.num_training_batches:
            self.trace.step_done(self.trainer.global_step - 1, self.micro)

    def validation_step(self, rows: Tensor, batch_idx: int) -> None:
        self.log("val_loss", loss_of(self.model(rows[:, :-1]), rows[:, 1:]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.job.steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(job: Job) -> Result:
    L.seed_everything(job.seed, verbose=False)
    is_timed = job.mode is not None
    run = None
    if job.guarded:
        run = lossguard.init(project="frameworks", directory=job.folder / "spool", mode=job.mode, run_id=job.run_id)
    epochs = _epochs(job)
    ours = [] if run is None else [Lossguard(run, every=EVERY)]
    best = ModelCheckpoint(job.folder / f"best-{job.guarded}", monitor="val_loss")
    theirs = [] if is_timed else [best, EarlyStopping("val_loss", patience=10**6, check_finite=False)]
    module = Module(job, run, _batches(epochs) if job.faults else {})
    loader: Any = _loader(job.seed)
    if job.skips:
        loader = without(epochs, job.skips, steps=job.steps, accumulate=ACCUMULATE, dataset=samples())  # type: ignore[arg-type]
    with quiet():
        trainer = L.Trainer(
            max_steps=job.steps,
            accumulate_grad_batches=ACCUMULATE,
            gradient_clip_val=1.0,
            val_check_interval=min(200, 400 // NUM_RANKS),
            callbacks=[*ours, *theirs],
            default_root_dir=job.folder,
            accelerator="cpu",
            devices=NUM_RANKS,
            strategy="ddp" if NUM_RANKS > 1 else "auto",
            use_distributed_sampler=not job.skips,
            logger=False,
            enable_checkpointing=not is_timed,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        validation: Any = DataLoader(samples()[:64], batch_size=64)  # type: ignore[arg-type]
        trainer.fit(module, loader, None if is_timed else validation)
    if run is not None:
        run.finish()
        module.trace.result.run_id = run.id
    return module.trace.finish(module.model, trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler)


def _loader(seed: int, data: Any = None) -> Any:  # of `samples()`, or of their indices
    generator = torch.Generator().manual_seed(seed)
    data = samples() if data is None else data
    return DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, generator=generator)


def _epochs(job: Job) -> list[list[list[int]]]:
    """The samples of each micro-batch of twice as many epochs as are needed. Lightning asks for no end of an epoch."""
    data: Any = list(range(len(samples())))
    loader = _loader(job.seed, data)
    num_epochs = 2 + 2 * math.ceil(job.steps * ACCUMULATE * NUM_RANKS / len(loader))
    if NUM_RANKS == 1:
        return [[each.tolist() for each in islice(loader, len(loader))] for _ in range(num_epochs)]
    epochs = []
    sampler: Any = DistributedSampler(data, NUM_RANKS, RANK, shuffle=True, seed=job.seed)
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        epochs.append(list(BatchSampler(sampler, BATCH_SIZE, drop_last=False)))
    return epochs


def _batches(epochs: list[list[list[int]]]) -> dict[int, int]:
    """Checksum of the contents -> index of the batch."""
    rows = samples()
    steps = math.ceil(len(epochs[0]) / ACCUMULATE)
    return {
        checksum(rows[samples_B]): epoch * steps + number // ACCUMULATE
        for epoch, micro_batches in enumerate(epochs)
        for number, samples_B in enumerate(micro_batches)
    }
