"""A loop on accelerate, with gradient accumulation, that is rolled back past a bad part of its data.

    python examples/accelerate_loop.py [--steps 400]          about a minute on two cores

It trains a tiny model on the source of Python's standard library. The targets of the batches 200 to 229 are shuffled.
The collector runs beside it; the summary at the end says what was detected, and what it cost.
"""

import argparse
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

import lossguard
from examples.laptop import FAULT, TinyModel, collector, loss_of, shuffled, summary, text
from lossguard.torch import Batches, Checkpoints, over_ranks


def train(steps: int, folder: Path) -> str:
    """Train, and return the id of the run."""
    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = TinyModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    loader: DataLoader[torch.Tensor] = DataLoader(text(6000), batch_size=8, shuffle=True)  # type: ignore[arg-type]
    model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)

    run = lossguard.init(project="accelerate-loop", directory=folder / "spool")
    checkpoints = Checkpoints(folder / run.id, model=model, optimizer=optimizer, scheduler=schedule)
    guard = lossguard.Guard(run, checkpoints=checkpoints, every=25)
    for step, micro_batches in guard.steps(Batches(loader, accumulate=2), until=steps):
        losses = []
        for batch in micro_batches:
            inputs, targets = batch[:, :-1], batch[:, 1:]
            if run.batch_index in FAULT:
                targets = shuffled(targets)
            with accelerator.accumulate(model):
                loss = loss_of(model(inputs), targets)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
        mean_loss, grad_norm = over_ranks(losses, norm)
        run.log(step, loss=mean_loss, grad_norm=grad_norm, lr=schedule.get_last_lr()[0])
    run.finish()
    return run.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    with collector() as folder:
        summary(train(given.steps, folder))
