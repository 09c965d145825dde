"""A loop that is rolled back past corrupted samples, over each kind of data that loops really have.

The samples are windows of a corpus, and the first token of a window is its number. Those that the loop sees in batches
10 to 12 are the corrupted ones, wherever they come again. The loop draws random numbers of its own in every step, as
dropout does.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lossguard import Guard, Order, Ranks
from lossguard.torch import Checkpoints
from tests.lossguard.checkpoints.box import Box
from tests.lossguard.scripted import ScriptedRun, rollback

NUM, NUM_DRAWN, SIZE, WIDTH = 800, 1_000_000, 4, 8
"""Windows of a dataset, of a corpus from which they are drawn, and of a batch; tokens of a window."""
BAD = range(10, 13)
"""The batches that are skipped."""
REWIND_TO, LEFT, UNTIL = 8, 16, 40
"""Steps: the one to which the run is rolled back, the one that it leaves, and the last one."""


def window(number: int) -> Tensor:
    """(WIDTH,)"""
    return number + torch.arange(WIDTH) * NUM_DRAWN


def get_batch(draw: Callable[[], int] = lambda: int(torch.randint(NUM_DRAWN, ()))) -> Tensor:
    """(SIZE, WIDTH)"""
    return torch.stack([window(draw()) for _ in range(SIZE)])


def with_numpy() -> Tensor:
    return get_batch(lambda: int(np.random.randint(NUM_DRAWN)))


def with_python() -> Tensor:
    return get_batch(lambda: random.randrange(NUM_DRAWN))


class Windows(Dataset[Tensor]):
    """Window i is sample i."""

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, index: int) -> Tensor:
        return window(index)


class RandomWindows(Windows):
    """Samples that are drawn whatever the index is."""

    def __getitem__(self, index: int) -> Tensor:
        return window(int(torch.randint(NUM_DRAWN, ())))


class DrawnWindows(IterableDataset[Tensor]):
    """Samples without end, drawn from torch's random numbers in each process that iterates."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield window(int(torch.randint(NUM_DRAWN, ())))


class Shuffled:
    """Batches in another order in each pass."""

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.permutation(NUM)
        for first in range(0, NUM, SIZE):
            yield torch.stack([window(int(number)) for number in order[first : first + SIZE]])


class DrawnByIndex:
    """Batches that are asked for by index, and drawn nevertheless."""

    def __getitem__(self, index: int) -> Tensor:
        return get_batch()


@dataclass
class Trained:
    """What the loop was given: of each step its batch index, its windows, and a number that the loop drew."""

    run: Any
    guard: Guard
    before: list[tuple[int, list[int], float]] = field(default_factory=list)
    after: list[tuple[int, list[int], float]] = field(default_factory=list)
    """From the rollback on."""

    @property
    def bad(self) -> set[int]:
        return {number for index, numbers, _ in self.before if index in BAD for number in numbers}

    @property
    def bad_after(self) -> list[int]:
        """Corrupted samples that were trained after the rollback."""
        return [number for _, numbers, _ in self.after for number in numbers if number in self.bad]


def train(
    folder: Path,
    data: Any,
    read: Callable[[Any], Any] = lambda batch: batch,
    *,
    until: int = UNTIL,
    orders: Mapping[int, Order] | None = None,
    run: Any = None,
    ranks: Ranks | None = None,
) -> Trained:
    """Train over `data`, whose batches `read` makes tensors of, and roll back; `orders`: at further boundaries.

    `run`, `ranks`: those of a process that is not alone.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    past_the_bad = rollback(rewind_to=REWIND_TO, skip_from=BAD.start, skip_to=BAD.stop)
    run = run or ScriptedRun({LEFT + 1: past_the_bad, **(orders or {})})
    checkpoints = Checkpoints(folder / "checkpoints", model=Box(), blocking=True, ranks=ranks)
    guard = Guard(run, checkpoints=checkpoints, every=4, ranks=ranks)
    trained = Trained(run, guard)
    for _, batch in guard.steps(data() if callable(data) else data, until):
        is_after = bool(guard.ledger.skips)
        windows = read(batch)
        numbers = torch.as_tensor(windows).reshape(-1, WIDTH)[:, 0].tolist()
        assert run.batch_index is not None
        (trained.after if is_after else trained.before).append((run.batch_index, numbers, torch.rand(()).item()))
    return trained


def loader(**options: Any) -> DataLoader[Tensor]:
    return DataLoader(Windows(), batch_size=SIZE, shuffle=True, **options)
