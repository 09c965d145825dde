"""Two fits on several ranks: a guarded one with rollbacks, and a plain one that never reads the skipped batches.

torchrun --nproc-per-node 2 -m tests.lossguard.lightning.ranks FOLDER 2 lossguard    # or without torchrun
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DistributedSampler

from lossguard import Run
from lossguard.lightning import Lossguard
from tests.lossguard.lightning.fitting import LoggingRun, Module, Numbers, break_weight, fit, shuffled, without
from tests.lossguard.scripted import rollback

SIZE, SKIPS, STEPS = 88, [(14, 22)], 40


def main(folder: Path, num_ranks: int, store: str) -> None:
    """Write what this rank saw to `folder`."""
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    settings: dict[str, Any] = {"max_steps": STEPS, "accumulate_grad_batches": 2, "strategy": "ddp"}
    settings |= {"devices": num_ranks, "gradient_clip_val": 0.1}
    orders = {31: rollback(1, rewind_to=13, skip_from=14, skip_to=22), 50: rollback(2, rewind_to=20)}
    run = LoggingRun(orders) if rank == 0 else Run(id="other", rank=rank, num_ranks=num_ranks)
    loader = shuffled(SIZE)
    module = Module(before_step=break_weight(at=27))
    guarded = fit(folder, loader, Lossguard(run, every=5, store=store, skip_samples="once"), module=module, **settings)
    sampler: DistributedSampler[Any] = DistributedSampler(Numbers(SIZE), num_ranks, rank, shuffle=True, seed=1)
    epochs = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        epochs.append(list(BatchSampler(sampler, 4, drop_last=False)))
    order = without(epochs, SKIPS, steps=STEPS, accumulate=2, dataset=Numbers(SIZE))
    plain = fit(folder, order, **settings, use_distributed_sampler=False)
    found = {
        "seen": guarded.seen == plain.seen,
        "random": guarded.events[-1] == plain.events[-1],
        "weights": [torch.equal(a, b) for a, b in zip(guarded.parameters(), plain.parameters(), strict=True)],
        "optimizer": str(guarded.optimizers().state_dict()) == str(plain.optimizers().state_dict()),  # type: ignore[union-attr]
        "losses": {step: [each[1] for each in seen] for step, seen in plain.seen.items()},
    }
    if isinstance(run, LoggingRun):
        found |= {"recorded": run.recorded, "logged": {step: metrics for step, _, metrics in run.logged}}
    (folder / f"{num_ranks}-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
