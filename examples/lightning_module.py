"""A LightningModule that is rolled back past a bad part of its data, in the middle of `fit`.

    python examples/lightning_module.py [--steps 400]         about a minute on two cores

It trains a tiny model on the source of Python's standard library, and validates every 100 batches. The targets of the
batches 200 to 229 are shuffled. The collector runs beside it; the summary at the end says what was detected, and what
it cost.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

import lossguard
from examples.laptop import FAULT, TinyModel, collector, loss_of, shuffled, summary, text
from lossguard.lightning import Lossguard


class LanguageModel(L.LightningModule):
    def __init__(self, run: lossguard.Run, steps: int) -> None:
        super().__init__()
        self.run, self.steps = run, steps
        self.model = TinyModel()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        inputs, targets = batch[:, :-1], batch[:, 1:]
        if self.run.batch_index in FAULT:
            targets = shuffled(targets)
        logits: Tensor = self.model(inputs)
        return {"loss": loss_of(logits, targets), "log_z": logits.detach().logsumexp(-1).mean()}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", loss_of(self.model(batch[:, :-1]), batch[:, 1:]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(steps: int, folder: Path) -> str:
    """Train, and return the id of the run."""
    L.seed_everything(0, verbose=False)
    samples = text(8200)
    run = lossguard.init(project="lightning-module", directory=folder / "spool")
    trainer = L.Trainer(
        max_steps=steps,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        val_check_interval=100,
        check_val_every_n_epoch=None,
        callbacks=[Lossguard(run, every=25)],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    training: Any = DataLoader(samples[:8000], batch_size=12, shuffle=True)  # type: ignore[arg-type]
    validation: Any = DataLoader(samples[8000:], batch_size=50)  # type: ignore[arg-type]
    trainer.fit(LanguageModel(run, steps), training, validation)
    run.finish()
    return run.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    with collector() as folder:
        summary(train(given.steps, folder))
