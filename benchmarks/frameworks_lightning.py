"""Lightning alone against Lightning with the callback, on a tiny transformer and real text.

python -m benchmarks.frameworks_lightning faults [--seeds 3] [--steps 600] [--workers 2]
    a bad part of the data and a NaN weight, detected by a real collector and rolled back; then a plain fit that never
    reads the skipped batches, which must be the same bit for bit; and a clean fit, for the held-out loss
python -m benchmarks.frameworks_lightning time [--steps 300]
    the time of a step, alone and with the callback, in turns
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

import lossguard
from examples.laptop import TinyModel, collector, loss_of, text
from lossguard.lightning import Lossguard
from tests.lossguard.lightning.fitting import LoggingRun, quiet, without

NUM_SAMPLES, BATCH, ACCUMULATE = 3224, 8, 2
"""403 micro-batches to an epoch, and so a last step of one micro-batch."""
BAD = range(150, 175)
"""Indices of the batches whose targets are another text."""
BROKEN_AT = 350
"""The step before which a weight becomes NaN, the first time."""


class Model(L.LightningModule):
    """Faults only where there is a `run`."""

    def __init__(self, run: lossguard.Run | None, steps: int, width: int = 64) -> None:
        super().__init__()
        self.run, self.steps = run, steps
        self.model = TinyModel(width)
        self.is_broken = False
        self.seen: dict[int, list[tuple[float, float]]] = {}

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        step = self.trainer.global_step
        inputs, targets = batch[:, :-1], batch[:, 1:]
        if self.run is not None and self.run.batch_index in BAD:
            targets = targets.roll(7, 1).flip(0)
        if self.run is not None and step == BROKEN_AT and not self.is_broken:
            self.is_broken = True
            with torch.no_grad():
                self.model.head.weight[5, 3] = float("nan")
        logits: Tensor = self.model(inputs)
        loss = loss_of(logits, targets)
        self.seen.setdefault(step, []).append((batch.double().sum().item(), loss.item()))
        return {"loss": loss, "log_z": logits.detach().logsumexp(-1).mean()}

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.seen[self.trainer.global_step] = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", loss_of(self.model(batch[:, :-1]), batch[:, 1:]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(folder: Path, model: Model, loader: Any, seed: int, *callbacks: Any, validate: bool = True) -> None:
    held_out: Any = DataLoader(text(NUM_SAMPLES + 256)[NUM_SAMPLES:], batch_size=64)  # type: ignore[arg-type]
    best = [ModelCheckpoint(folder / "best", monitor="val_loss"), EarlyStopping("val_loss", patience=1000)]
    best[1].check_finite = False  # type: ignore[attr-defined]
    with quiet():
        trainer = L.Trainer(
            max_steps=model.steps,
            accumulate_grad_batches=ACCUMULATE,
            gradient_clip_val=1.0,
            val_check_interval=100,
            callbacks=[*callbacks, *(best if validate else [])],
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=validate,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        L.seed_everything(seed, verbose=False)
        trainer.fit(model, loader, held_out if validate else None)


def seeded(seed: int, steps: int, run: lossguard.Run | None, width: int = 64) -> Model:
    L.seed_everything(seed, verbose=False)
    return Model(run, steps, width)


def loader(seed: int, workers: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    data: Any = text(NUM_SAMPLES)
    return DataLoader(data, batch_size=BATCH, shuffle=True, generator=generator, num_workers=workers)


def filtered(seed: int, steps: int, skips: Sequence[tuple[int, int]], workers: int) -> Any:
    """Workers read ahead to the end of an epoch; without them, Lightning does not ask for that end."""
    generator = torch.Generator().manual_seed(seed)
    numbers: Any = DataLoader(list(range(NUM_SAMPLES)), batch_size=BATCH, shuffle=True, generator=generator)  # type: ignore[arg-type]
    num_read = len(numbers) + bool(workers)
    epochs = [[each.tolist() for each in islice(numbers, num_read)] for _ in range(12)]
    return without(epochs, skips, steps=steps, accumulate=ACCUMULATE, dataset=text(NUM_SAMPLES))  # type: ignore[arg-type]


@torch.no_grad()
def held_out_loss(model: Model) -> float:
    rows = text(NUM_SAMPLES + 256)[NUM_SAMPLES:]
    model.eval()
    return loss_of(model.model(rows[:, :-1]), rows[:, 1:]).item()


def faults(seed: int, steps: int, workers: int) -> dict[str, Any]:
    with collector() as folder:
        run = lossguard.init(project="frameworks", directory=folder / "spool")
        _set_policy(run.id)
        guarded = seeded(seed, steps, run)
        fit(folder / "guarded", guarded, loader(seed, workers), seed, Lossguard(run, every=25))
        after = torch.rand(1).item()
        run.finish()
        with lossguard.Client(os.environ["LOSSGUARD_URL"]) as client:
            known = client.get(f"/runs/{run.id}")
        orders = [each for each in known["orders"] if each["kind"] == "rollback" and each["state"] == "applied"]
        skips = [(each["skip_from"], each["skip_to"]) for each in known["skip_ledger"]]
        plain = seeded(seed, steps, None)
        fit(folder / "plain", plain, filtered(seed, steps, skips, workers), seed)
        is_random_same = torch.rand(1).item() == after
        clean = seeded(seed, steps, None)
        fit(folder / "clean", clean, loader(seed, workers), seed)
        same = sum(guarded.seen[step] == plain.seen[step] for step in range(steps))
        states = [[*each.state_dict().values()] for each in (guarded, plain)]
        moments = [str(each.trainer.optimizers[0].state_dict()) for each in (guarded, plain)]
        ours, theirs = held_out_loss(guarded), held_out_loss(clean)
        return {
            "seed": seed,
            "rollbacks": [(each["rewind_to"], each["skip_from"], each["skip_to"]) for each in orders],
            "interventions": [each["state"] for each in known["interventions"]],
            "same steps": f"{same}/{steps}",
            "weights": all(torch.equal(a, b) for a, b in zip(*states, strict=True)),
            "optimizer": moments[0] == moments[1],
            "random": is_random_same,
            "held-out": round(ours, 4),
            "clean": round(theirs, 4),
            "difference": f"{100 * (ours / theirs - 1):+.2f}%",
        }


def _set_policy(run_id: str) -> None:
    with lossguard.Client(os.environ["LOSSGUARD_URL"]) as client:
        for _ in range(100):
            try:
                client.request("PUT", f"/runs/{run_id}/policy", {"mode": "auto", "min_depth": 50})
                return
            except lossguard.CollectorError:
                time.sleep(0.1)


def step_times(steps: int, width: int) -> dict[str, float]:
    """Median milliseconds of a step: rounds of Lightning alone and of Lightning with the callback, in turns."""
    found: dict[str, list[float]] = {"alone": [], "guarded": []}
    for _ in range(3):
        for name in found:
            with tempfile.TemporaryDirectory() as folder:
                clock = _Clock()
                ours = [Lossguard(LoggingRun(), every=10**6)] if name == "guarded" else []
                model = seeded(0, steps, None, width)
                fit(Path(folder), model, loader(0, 0), 0, *ours, clock, validate=False)
                found[name].append(statistics.median(clock.milliseconds[20:]))
    return {name: round(min(values), 3) for name, values in found.items()}


class _Clock(L.Callback):
    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.last = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > len(self.milliseconds):
            now = time.perf_counter()
            self.milliseconds.append(1e3 * (now - self.last))
            self.last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["faults", "time"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--width", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "time":
        print(json.dumps(step_times(given.steps, given.width)))
        return
    for seed in given.seeds:
        print(json.dumps(faults(seed, given.steps, given.workers)), flush=True)


if __name__ == "__main__":
    main()
