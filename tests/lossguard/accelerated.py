"""A training loop on accelerate, guarded and plain: python -m tests.lossguard.accelerated FOLDER OPTIONS.. (as JSON).

It runs in one process, and on every rank of `accelerate launch` or torchrun. Each rank writes what it saw.
"""

import json
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lossguard import Guard, Ledger, Run, Skip
from lossguard.run.ranks import Ranks
from lossguard.torch import Batches, Checkpoints, TorchRanks
from tests.lossguard.scripted import ScriptedRun, rollback

Seen = dict[int, list[tuple[int, str]]]
"""Step -> (checksum of the contents, loss) of each micro-batch, of the live branch."""


@dataclass(kw_only=True)
class Options:
    steps: int = 40
    rows: int = 90
    """Samples of an epoch; micro-batches have 4."""
    accumulate: int = 2
    workers: int = 0
    generator: bool = False
    loader: dict[str, Any] = field(default_factory=dict)
    """Of DataLoaderConfiguration."""
    skips: list[Any] = field(default_factory=list)
    """Of the guarded loop: ordered by rollbacks to 10 steps before. Of the plain loop: left out from the start."""
    store: str = "ours"
    compile: bool = False
    arms: bool = False
    """Ask for the arms of each rollback."""


class Training:
    """The objects of a loop, prepared."""

    def __init__(self, options: Options) -> None:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        torch.manual_seed(7)
        configuration = DataLoaderConfiguration(**options.loader)
        self.accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=options.accumulate, dataloader_config=configuration
        )
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 6))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=8 * options.steps)
        rows = torch.randn(options.rows, 6, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(5) if options.generator else None
        loader: Any = DataLoader(
            rows,  # type: ignore[arg-type]
            batch_size=4,
            shuffle=True,
            num_workers=options.workers,
            generator=generator,
        )
        prepared = self.accelerator.prepare(model, optimizer, scheduler, loader)
        self.model, self.optimizer, self.scheduler, self.loader = prepared
        if options.compile:
            self.model = torch.compile(self.model)
        torch.manual_seed(100 + self.accelerator.process_index)

    def step(self, micro_batches: Iterable[Tensor]) -> list[tuple[int, str]]:
        """One optimizer step, in the way of accelerate's documentation."""
        seen = []
        for batch in micro_batches:
            with self.accelerator.accumulate(self.model):
                loss = (self.model(batch) - batch).square().mean()
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
            seen.append((zlib.crc32(batch.numpy().tobytes()), loss.item().hex()))
        return seen

    def final(self) -> dict[str, Any]:
        states = (self.model.state_dict(), self.optimizer.state_dict(), self.scheduler.state_dict())
        return {"states": [checksum(state) for state in states], "rng": checksum(torch.get_rng_state())}


def checksum(state: Any) -> int:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.tolist() if isinstance(value, Tensor) else value

    return zlib.crc32(repr(plain(state)).encode())


def train_plain(options: Options) -> dict[str, Any]:
    """Micro-batches are used as they come: accelerate looks at whether the last one of the epoch was read."""
    training = Training(options)
    ledger = Ledger(Skip(*skip) for skip in options.skips)
    seen: Seen = {}
    step = batch = 0
    for epoch in count():
        length = len(training.loader)
        for number, micro_batch in enumerate(training.loader):
            if ledger.next_free(batch) == batch:
                seen.setdefault(step, []).extend(training.step([micro_batch]))
            if (number + 1) % options.accumulate == 0 or number + 1 == length:
                step, batch = step + (ledger.next_free(batch) == batch), batch + 1
                if step == options.steps:
                    return {"seen": seen, "epochs": epoch, **training.final()}
    raise AssertionError


def orders_of(options: Options) -> dict[int, Any]:
    """A rollback for each skip, at the boundary 8 steps after its first batch was used."""
    orders: dict[int, Any] = {}
    boundary, step, num_skipped = 1, 0, 0
    for number, (begin, end) in enumerate(options.skips, 1):
        detected = begin - num_skipped + 8
        boundary, step = boundary + detected - step, max(0, detected - 10) // 5 * 5
        orders[boundary] = rollback(id=number, rewind_to=step, skip_from=begin, skip_to=end)
        num_skipped += end - begin
    return orders


def store_of(training: Training, options: Options, folder: Path) -> Any:
    if options.store == "accelerate":
        from lossguard.accelerate import AcceleratorCheckpoints

        return AcceleratorCheckpoints(training.accelerator, folder)
    return Checkpoints(folder, model=training.model, optimizer=training.optimizer, scheduler=training.scheduler)


def train_guarded(
    options: Options, folder: Path, *, stop_at: int | None = None, resume_from: int | None = None
) -> dict[str, Any]:
    """`stop_at`: leave the loop before this step, as a process that dies; called again, it resumes."""
    training = Training(options)
    rank, size = training.accelerator.process_index, training.accelerator.num_processes
    run: Any = ScriptedRun(orders_of(options)) if rank == 0 else Run(id="r", rank=rank, num_ranks=size)
    run.num_ranks = size
    ranks = TorchRanks(pause=0) if size > 1 else Ranks()
    store = store_of(training, options, folder)
    guard = Guard(run, checkpoints=store, every=5, ranks=ranks, skip_samples="once", resume_from=resume_from)
    if options.arms:
        guard.arms(lambda: [1.0], share=100.0, window=6)
    seen: Seen = {}
    executed = 0
    for step, micro_batches in guard.steps(Batches(training.loader, accumulate=options.accumulate), options.steps):
        if step == stop_at:
            guard.checkpoints.settle(True)
            break
        seen[step] = training.step(micro_batches)
        executed += 1
    return {"seen": seen, "executed": executed, "orders": len(options.skips), **training.final()}


def main(folder: Path, *arms: str) -> None:
    results = []
    for number, arm in enumerate(arms):
        given = json.loads(arm)
        is_plain = given.pop("plain", False)
        options = Options(**given)
        results.append(train_plain(options) if is_plain else train_guarded(options, folder / f"arm-{number}"))
    rank = PartialState().process_index
    (folder / f"rank-{rank}.json").write_text(json.dumps(results))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
