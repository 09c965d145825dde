import random
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, WeightedRandomSampler

from lossguard.torch import Batches, MicroBatches
from lossguard.torch.generators import generators

N, SIZE = 83, 8
LENGTH = 11  # batches of an epoch, the last one smaller


class Numbers(Dataset[int]):
    """Sample i is i; it notes what was loaded."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> int:
        self.loaded.append(index)
        return index


class Stream(IterableDataset[int]):
    """Another order in each epoch, as of `datasets`."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(self.epoch).sample(range(N), N))


def loader(**options: Any) -> DataLoader[int]:
    return DataLoader(Numbers(), batch_size=SIZE, **options)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": loader,
    "shuffled": lambda: loader(shuffle=True),
    "shuffled, with a generator": lambda: loader(shuffle=True, generator=seeded()),
    "last batch dropped": lambda: loader(shuffle=True, drop_last=True),
    "distributed": lambda: loader(sampler=DistributedSampler(range(N), num_replicas=2, rank=1)),  # type: ignore[arg-type]
    "weighted": lambda: loader(sampler=WeightedRandomSampler([1.0] * N, N)),
    "a list of batches": lambda: DataLoader(Numbers(), batch_sampler=[[3, 1], [2], [5, 4, 0]]),
    "single samples": lambda: DataLoader(Numbers(), batch_size=None, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=SIZE),
    "a list": lambda: [torch.tensor([k]) for k in range(5)],
}
WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "workers": lambda: loader(shuffle=True, num_workers=2),
    "persistent workers": lambda: loader(shuffle=True, num_workers=2, persistent_workers=True, prefetch_factor=3),
    "a stream with a worker": lambda: DataLoader(Stream(), batch_size=SIZE, num_workers=1),
}


def content(batch: Any) -> list[int]:
    return torch.as_tensor(batch).flatten().tolist()  # type: ignore[no-any-return]


def plain(loader: Any, num: int) -> list[list[int]]:
    """The first batches of a plain loop, which tells of the epoch what can be told."""
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < num:
        for part in (getattr(loader, "sampler", None), getattr(loader, "dataset", None)):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        batches += map(content, loader)
        epoch += 1
    return batches[:num]


def check_ways(build: Callable[[], Any], ways: list[tuple[int, int]]) -> None:
    """Read 40 micro-batches as a plain loop does, and then (from, how many) of them, in a loop that draws itself."""
    torch.manual_seed(0)
    expected = plain(build(), 40)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    stream = MicroBatches(build())
    assert [content(next(stream)) for _ in range(40)] == expected
    if stream.length and 40 % stream.length:
        assert torch.equal(torch.get_rng_state(), after)  # no trace
    for position, num in ways:
        torch.rand(3)
        stream.seek(position)
        assert [content(next(stream)) for _ in range(num)] == expected[position : position + num]


WAYS = st.lists(st.tuples(st.integers(0, 35), st.integers(1, 5)), max_size=8)


@pytest.mark.parametrize("name", LOADERS)
@given(ways=WAYS)
@settings(max_examples=15, deadline=None)
def test_a_micro_batch_is_that_of_the_plain_loop_whatever_way_it_is_reached(
    name: str, ways: list[tuple[int, int]]
) -> None:
    check_ways(LOADERS[name], ways)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WORKERS)
def test_with_workers_too(name: str) -> None:
    check_ways(WITH_WORKERS[name], [(7, 3), (2, 2), (35, 5), (22, 1), (9, 4), (30, 1)])
