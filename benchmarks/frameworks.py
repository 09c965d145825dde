"""The worth of a guarded run of a framework: its held-out loss, and the time of the loop's thread inside Lossguard.

    python -m benchmarks.frameworks hf|lightning|accelerate held-out [--seeds 3] [--steps 600]
    python -m benchmarks.frameworks hf|lightning|accelerate own-time [--steps 200]

Held out: the loss on unseen text of a guarded run with planted faults (bad batches, and a weight that becomes NaN) and
a collector of its own, beside a clean run without a guard. Own time: CPU time; loading data is not counted, because
the framework alone does it too, but the digests of the samples are. Other processes disturb it less than a comparison
of runs.
"""

import argparse
import functools
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lossguard
from examples.laptop import CONTEXT, TinyModel, collector, loss_of, text
from lossguard import Client
from lossguard.torch import Batches, Checkpoints, over_ranks

BATCH_SIZE, ACCUMULATE, EVERY = 8, 2, 25
NUM_SAMPLES, NUM_HELD_OUT = 4_840, 400
"""An epoch has 302.5 steps: the last one has a single micro-batch."""
BAD_BATCHES, NAN_STEP = range(200, 225), 380
"""Batches whose targets are shuffled, and the step before which one weight becomes NaN, once."""
METHODS: dict[str, dict[str, tuple[str, ...]]] = {
    "hf": {"lossguard.hf.guarding.Guarding": ("_boundary", "log_step", "_add", "on_step_end", "on_pre_optimizer_step")},
    "lightning": {
        "lossguard.lightning.callback.Lossguard": (
            *("_boundary", "flush", "on_train_batch_end", "on_before_optimizer_step", "_scale", "_unscale"),
        )
    },
    "accelerate": {
        "lossguard.guard.guard.Guard": ("boundary",),
        "lossguard.run.spooled.SpooledRun": ("log",),
        "__main__": ("over_ranks",),
    },
}
"""Functions that the loop's thread enters, beside DIGESTS."""
DIGESTS = {"lossguard.guard.data.comparison.SampleComparison": ("add_micro_batch",)}


@dataclass(kw_only=True)
class Job:
    """One run, what is planted in it, and what it has become."""

    folder: Path
    seed: int = 0
    steps: int
    run: lossguard.Run | None = None
    """The run of a guarded training."""
    faults: bool = False
    held_out: float = 0.0
    """Nats per byte."""
    cpu_seconds: tuple[float, ...] = ()
    """CPU time of the loop's thread at the end of each step."""
    seconds: tuple[float, ...] = ()
    """Clock at the end of each step."""
    device: str = "cpu"
    """Device of the Trainer: cpu or cuda."""
    has_struck: bool = False

    def strike(self, step: int, model: nn.Module) -> None:
        """Plant the fault of the weights before its step, once."""
        if self.faults and step == NAN_STEP and not self.has_struck:
            self.has_struck = True
            with torch.no_grad():
                list(model.parameters())[-1].view(-1)[3] = float("nan")

    def targets(self, rows_BT: Tensor) -> Tensor:
        """The targets of a micro-batch, which are shuffled in bad batches, the same way each time."""
        targets_BT = rows_BT[:, 1:]
        if not self.faults or self.run is None or self.run.batch_index not in BAD_BATCHES:
            return targets_BT
        order = torch.randperm(targets_BT.numel(), generator=torch.Generator().manual_seed(int(rows_BT.sum())))
        return targets_BT.flatten()[order].view_as(targets_BT)

    def step_done(self) -> None:
        self.cpu_seconds += (time.thread_time(),)
        self.seconds += (time.perf_counter(),)

    @torch.no_grad()
    def finish(self, model: nn.Module, logits: Callable[[Tensor], Tensor]) -> None:
        if self.run is not None:
            self.run.finish()
        rows = text(NUM_SAMPLES + NUM_HELD_OUT)[NUM_SAMPLES:].to(self.device)
        model.eval()
        self.held_out = loss_of(logits(rows[:, :-1]), rows[:, 1:]).item()


def _optimizer(model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)


def _loader() -> Any:
    rows: Any = text(NUM_SAMPLES)
    return DataLoader(rows, batch_size=BATCH_SIZE, shuffle=True)


def accelerate(job: Job) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import DataLoaderConfiguration, set_seed

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    set_seed(job.seed)
    configuration = DataLoaderConfiguration(use_seedable_sampler=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE, dataloader_config=configuration)
    tiny = TinyModel()
    prepared: Any = accelerator.prepare(tiny, *_optimizer(tiny, job.steps), _loader())
    model, optimizer, schedule, loader = prepared

    def train(step: int, micro_batches: Iterable[Tensor]) -> None:
        job.strike(step, model)
        losses: list[Any] = []
        norm: Any = None
        for rows in micro_batches:
            with accelerator.accumulate(model):
                loss = loss_of(model(rows[:, :-1]), job.targets(rows))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
        if job.run is not None:
            mean_loss, grad_norm = over_ranks(losses, norm)
            job.run.log(step, loss=mean_loss, grad_norm=grad_norm, lr=schedule.get_last_lr()[0])
        job.step_done()

    if job.run is None:
        batches = Batches(loader, accumulate=ACCUMULATE)
        for step in range(job.steps):
            train(step, batches[step])
    else:
        parts = {"model": model, "optimizer": optimizer, "scheduler": schedule}
        guard = lossguard.Guard(job.run, checkpoints=Checkpoints(job.folder / job.run.id, **parts), every=EVERY)
        guard.tell = lambda sentence: None
        for step, micro_batches in guard.steps(Batches(loader, accumulate=ACCUMULATE), until=job.steps):
            train(step, micro_batches)
    job.finish(model, model)


def lightning(job: Job) -> None:
    import lightning as L

    from lossguard.lightning import Lossguard
    from tests.lossguard.lightning.fitting import quiet

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = TinyModel()

        def training_step(self, rows: Tensor, batch_idx: int) -> Tensor:
            if batch_idx % ACCUMULATE == 0:
                job.strike(self.trainer.global_step, self.model)
            return loss_of(self.model(rows[:, :-1]), job.targets(rows))

        def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
            if (batch_idx + 1) % ACCUMULATE == 0 or batch_idx + 1 == self.trainer.num_training_batches:
                job.step_done()

        def configure_optimizers(self) -> Any:
            optimizer, schedule = _optimizer(self, job.steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    L.seed_everything(job.seed, verbose=False)
    module = Module()
    with quiet():
        trainer = L.Trainer(
            max_steps=job.steps, accumulate_grad_batches=ACCUMULATE, gradient_clip_val=1.0, accelerator="cpu",
            callbacks=[] if job.run is None else [Lossguard(job.run, every=EVERY)], default_root_dir=job.folder,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, _loader())
    job.finish(module.model, module.model)


def hf(job: Job) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

    class Struck(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            rows_BT = inputs["input_ids"]
            inputs["labels"] = torch.cat((rows_BT[:, :1], job.targets(rows_BT)), dim=1)
            return super().training_step(model, inputs, num_items_in_batch)

    class Steps(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.strike(state.global_step, model)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.step_done()

    set_seed(job.seed)
    size: dict[str, Any] = {"vocab_size": 256, "n_positions": CONTEXT + 1, "n_head": 4, "n_embd": 64, "n_layer": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    rows: Any = [{"input_ids": row, "labels": row} for row in text(NUM_SAMPLES)]
    arguments = TrainingArguments(
        output_dir=str(job.folder / "trainer"), max_steps=job.steps, per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=ACCUMULATE, learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=50,
        weight_decay=0.1, logging_steps=50, save_strategy="no", report_to=[], disable_tqdm=True,
        seed=job.seed, use_cpu=job.device == "cpu",
    )  # fmt: skip
    trainer = Struck(model=model, args=arguments, train_dataset=rows, callbacks=[Steps()])
    if job.run is not None:
        lossguard.hf.guard(trainer, job.run, every=EVERY).tell = lambda sentence: None
    trainer.train()
    job.finish(model, lambda inputs: model(input_ids=inputs).logits)


TRAIN: dict[str, Callable[[Job], None]] = {"hf": hf, "lightning": lightning, "accelerate": accelerate}


def held_out(framework: str, steps: int, seeds: int) -> None:
    """Print the held-out loss of guarded and clean runs."""
    for seed in range(seeds):
        with collector() as folder, Client(os.environ["LOSSGUARD_URL"]) as client:
            clean = Job(folder=folder, seed=seed, steps=steps)
            TRAIN[framework](clean)
            run = lossguard.init(project="frameworks", directory=folder / "spool", run_id="guarded")
            guarded = replace(clean, run=run, faults=True, cpu_seconds=())
            TRAIN[framework](guarded)
            stored = client.get("/runs/guarded")
        states = ", ".join(each["state"] for each in stored["interventions"])
        skips = [(skip["skip_from"], skip["skip_to"]) for skip in stored["skip_ledger"]]
        share = f"{guarded.held_out / clean.held_out - 1:+.2%}"
        print(f"seed {seed}: guarded {guarded.held_out:.4f}, clean {clean.held_out:.4f}: {share}", flush=True)
        print(f"  {len(guarded.cpu_seconds)} steps executed; interventions: {states}; batches skipped: {skips}")


def own_time(framework: str, steps: int) -> None:
    """Sum the time in the functions of METHODS; in nested ones, that of the outer one."""
    seconds, is_running = 0.0, False

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seconds, is_running
            if is_running:
                return function(*args, **kwargs)
            is_running, began = True, time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds += time.thread_time() - began
                is_running = False

        return call

    for path, names in (METHODS[framework] | DIGESTS).items():
        module, _, attribute = path.rpartition(".")
        owner = getattr(importlib.import_module(module), attribute) if module else importlib.import_module(path)
        for name in names:
            setattr(owner, name, timed(getattr(owner, name)))
    with tempfile.TemporaryDirectory() as folder:
        run = lossguard.init(project="frameworks", directory=folder, mode="offline")
        job = Job(folder=Path(folder), steps=steps, run=run)
        TRAIN[framework](job)
    later = job.cpu_seconds[10:]
    step, own = statistics.mean(b - a for a, b in pairwise(later)), seconds / steps
    print(f"{framework}: {1000 * own:.2f} ms of a step of {1000 * step:.1f} ms: {own / (step - own):+.2%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=TRAIN)
    parser.add_argument("measurement", choices=("held-out", "own-time"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measurement == "held-out":
        held_out(given.framework, given.steps or 600, given.seeds)
    else:
        own_time(given.framework, given.steps or 200)
