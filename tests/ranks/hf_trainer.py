"""A Hugging Face Trainer on several ranks, started by torchrun or `accelerate launch`.

python -m torch.distributed.run --nproc-per-node 2 -m tests.ranks.hf_trainer FOLDER

Every rank writes what it found to FOLDER/rank-N.json.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from lossguard import Skip
from lossguard.hf import guard, watch
from tests.lossguard.hf.small import LENGTH, LoggedRun, Rows, state_of, trainer_in
from tests.lossguard.scripted import rollback

STEPS = 24


class Terminated(TrainerCallback):
    """Rank 1 gets SIGTERM in step 6."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 6 and state.max_steps == STEPS and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"max_steps": STEPS, "per_device_train_batch_size": 1, "ddp_backend": "gloo"}
    rows = Rows(96, lengths=(5, LENGTH, 9))
    plain = trainer_in(folder / "plain", rows, logging_steps=1, **options)
    plain.train()
    watched, seen = trainer_in(folder / "watched", rows, **options), LoggedRun()
    watch(watched, seen)
    watched.train()
    guarded = trainer_in(folder / "guarded", rows, **options)
    guard(guarded, LoggedRun(), every=5)
    guarded.train()

    reference = trainer_in(folder / "reference", rows, **options)
    guard(reference, LoggedRun(), every=100, skips=[Skip(8, 12)])
    reference.train()
    rolled_back = []
    for store in ("lossguard", "hf"):
        order = rollback(rewind_to=7, skip_from=8, skip_to=12)
        back, run = trainer_in(folder / store, rows, **options), LoggedRun({14: order} if dist.get_rank() == 0 else {})
        guard(back, run, every=5, store=store).ranks.pause = 0.0  # type: ignore[attr-defined]
        back.train()
        executed = len(back.trace) // 2
        rolled_back.append(
            (executed, run.recorded[1][:2], back.live() == reference.live(), state_of(back) == state_of(reference))
        )

    stopped, left = trainer_in(folder / "stopped", rows, callbacks=[Terminated()], **options), LoggedRun()
    guard(stopped, left, every=5).ranks.pause = 0.0  # type: ignore[attr-defined]
    stopped.train()
    resumed = trainer_in(folder / "stopped", rows, **options)
    guard(resumed, LoggedRun(), every=5)
    resumed.train()

    losses = [each["loss"] for each in plain.state.log_history if "grad_norm" in each]
    return {
        "world": dist.get_world_size(),
        "watched": state_of(watched) == state_of(plain),
        "losses": seen.column("loss") == losses,
        "tokens": seen.column("tokens")[-1],
        "guarded": (guarded.trace == plain.trace, state_of(guarded) == state_of(plain)),
        "rolled_back": rolled_back,
        "stopped_at": stopped.state.global_step,
        "interrupted": left.interrupted,
        "resumed": (stopped.trace + resumed.trace == plain.trace, state_of(resumed) == state_of(plain)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = main(Path(sys.argv[1]))
    (Path(sys.argv[1]) / f"rank-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
