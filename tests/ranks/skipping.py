"""Loaders of several ranks whose samples come on another rank in the next epoch. Each function is one scenario."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

from lossguard import Guard
from lossguard.torch import Batches, TorchRanks
from tests.lossguard.scripted import Memory, rollback
from tests.ranks.agreement import run_of

NUM, SIZE, EPOCHS = 90, 3, 3
SKIP_FROM, SKIP_TO = 3, 6
Result = dict[str, Any]
ACCELERATE: dict[str, dict[str, Any]] = {
    "shards": {},
    "shards, seedable": {"use_seedable_sampler": True, "data_seed": 1},
    "split": {"split_batches": True},
    "dispatched": {"dispatch_batches": True},
    "split and dispatched": {"split_batches": True, "dispatch_batches": True},
}


def loaders() -> Iterator[tuple[str, Any]]:
    """Every rank draws other random numbers, as with dropout."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import DataLoaderConfiguration

    size, rank = dist.get_world_size(), dist.get_rank()
    torch.manual_seed(rank)
    data: Any = torch.arange(NUM)
    yield "distributed", DataLoader(data, SIZE, sampler=DistributedSampler(data, size, rank, seed=1))
    yield "each its own order", DataLoader(data, SIZE, shuffle=True)
    for name, options in ACCELERATE.items():
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))
        yield name, accelerator.prepare(DataLoader(data, SIZE * (size if "split" in name else 1), shuffle=True))


def samples_that_were_skipped_on_any_rank(folder: Path) -> Result:
    return {name: follow(loader) for name, loader in loaders()}


def follow(loader: Any) -> Result:
    length = len(loader)
    run = run_of({SKIP_FROM + 2: rollback(rewind_to=1, skip_from=SKIP_FROM, skip_to=SKIP_TO)})
    guard = Guard(run, checkpoints=Memory([]), every=1, ranks=TorchRanks(pause=0))
    epochs: list[list[list[int]]] = [[] for _ in range(EPOCHS)]
    skipped: list[list[int]] = []
    until = EPOCHS * length - (SKIP_TO - SKIP_FROM)
    newest: dict[int, list[int]] = {}
    for _, batch in guard.steps(Batches(loader), until):
        assert run.batch_index is not None
        newest[run.batch_index] = batch.tolist()
    for index, samples in newest.items():
        if SKIP_FROM <= index < SKIP_TO:
            skipped.append(samples)
        else:
            epochs[index // length].append(samples)
    return {"epochs": epochs, "skipped": skipped, "recorded": getattr(run, "recorded", None)}


SCENARIOS = [samples_that_were_skipped_on_any_rank]
