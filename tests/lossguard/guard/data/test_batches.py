import random
import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)

from lossguard.checkpoints.state import generators
from lossguard.torch import Batches, MicroBatches
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.guard.data.numbers import Numbers, seeded

N, SIZE = 83, 8
LENGTH = 11  # batches of an epoch, the last one smaller


class Stream(IterableDataset[int]):
    """Another order in each epoch, as of `datasets`."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(self.epoch).sample(range(N), N))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(N), batch_size=SIZE, **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": loader,
    "shuffled": lambda: loader(shuffle=True),
    "shuffled, with a generator": lambda: loader(shuffle=True, generator=seeded()),
    "last batch dropped": lambda: loader(shuffle=True, drop_last=True),
    "a sampler without the generator of the loader": lambda: loader(
        sampler=RandomSampler(range(N)), generator=seeded()
    ),
    "with replacement, from a generator": lambda: loader(
        sampler=RandomSampler(range(N), replacement=True, generator=seeded())
    ),
    "distributed": lambda: loader(sampler=DistributedSampler(range(N), num_replicas=2, rank=1)),  # type: ignore[arg-type]
    "weighted": lambda: loader(sampler=WeightedRandomSampler([1.0] * N, N)),
    "a list of batches": lambda: DataLoader(Numbers(N), batch_sampler=[[3, 1], [2], [5, 4, 0]]),
    "single samples": lambda: DataLoader(Numbers(N), batch_size=None, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=SIZE),
    "a list": lambda: [torch.tensor([k]) for k in range(5)],
}
WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "workers": lambda: loader(shuffle=True, num_workers=2),
    "persistent workers": lambda: loader(shuffle=True, num_workers=2, persistent_workers=True, prefetch_factor=3),
    "a stream with a worker": lambda: DataLoader(Stream(), batch_size=SIZE, num_workers=1),
}


def content(batch: Any) -> list[int]:
    return torch.as_tensor(batch).flatten().tolist()


def plain(loader: Any, num: int) -> list[list[int]]:
    """The first batches of a plain loop, which sets the epoch wherever it can be set."""
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < num:
        for name in ("sampler", "dataset"):
            part: Any = getattr(loader, name, None)
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


@pytest.mark.parametrize("name", LOADERS)
def test_going_back_costs_the_loop_no_random_numbers(name: str) -> None:
    stream = MicroBatches(LOADERS[name]())
    for _ in range(14):
        next(stream)
    before = str(generators())
    for position in (2, 7, 1):
        stream.seek(position)
        next(stream)
    assert str(generators()) == before


@pytest.mark.parametrize("name", LOADERS)
def test_a_new_process_continues_in_the_middle_of_an_epoch(name: str) -> None:
    torch.manual_seed(0)
    stream = MicroBatches(LOADERS[name]())
    for _ in range(14):
        next(stream)
    saved, process = stream.state_dict(), torch.get_rng_state()
    expected = [content(next(stream)) for _ in range(20)], torch.get_rng_state()
    torch.manual_seed(1)
    again = MicroBatches(LOADERS[name]())
    torch.set_rng_state(process)
    again.load_state_dict(saved)
    again.seek(14, since=14)
    assert [content(next(again)) for _ in range(20)] == expected[0]
    assert torch.equal(torch.get_rng_state(), expected[1])


@pytest.mark.parametrize("name", LOADERS)
def test_a_rollback_whose_skip_ends_where_the_loader_stands(name: str) -> None:
    torch.manual_seed(0)
    expected = plain(LOADERS[name](), 20)
    torch.manual_seed(0)
    stream = MicroBatches(LOADERS[name]())
    for _ in range(2):
        next(stream)
    saved = stream.state_dict()
    for _ in range(3):
        next(stream)
    stream.load_state_dict(saved)
    stream.seek(5, since=2)
    assert [content(next(stream)) for _ in range(15)] == expected[5:]


def test_the_state_of_an_order_that_follows_from_the_epoch_is_empty() -> None:
    stream = MicroBatches(LOADERS["distributed"]())
    for _ in range(14):
        next(stream)
    assert stream.state_dict()["orders"] == {"drawn": {}, "own": [], "begun": [0, 1, 2]}


def test_skipped_samples_are_never_loaded() -> None:
    data = loader()
    stream = MicroBatches(data)
    next(stream)
    stream.seek(LENGTH + 9)
    next(stream)
    assert data.dataset.loaded == [*range(8), *range(72, 80)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [11, 14, 22, 36])
def test_a_skip_over_the_end_of_an_epoch_leaves_the_random_numbers_of_a_plain_loop_without_those_batches(
    end: int,
) -> None:
    def filtered(begin: int, end: int) -> tuple[list[list[int]], torch.Tensor]:
        torch.manual_seed(0)
        data = [(n, content(batch)) for n, batch in enumerate(chain(*[loader(shuffle=True)] * 4))]
        seen = [batch for n, batch in data if not begin <= n < end]
        return seen, torch.get_rng_state()

    torch.manual_seed(0)
    stream = MicroBatches(loader(shuffle=True))
    seen = [content(next(stream)) for _ in range(8)]
    stream.seek(end, since=8)
    seen += [content(next(stream)) for _ in range(4 * LENGTH - end)]
    after = torch.get_rng_state()
    assert seen == filtered(8, end)[0]
    assert torch.equal(after, filtered(8, end)[1])


def test_a_rollback_over_the_end_of_an_epoch_pays_for_it_again() -> None:
    stream = MicroBatches(loader())
    for _ in range(9):
        next(stream)
    before = torch.get_rng_state()
    for _ in range(4):
        next(stream)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    stream.seek(13, since=9)  # the position where it is
    next(stream)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(before, after)


def test_a_rollback_to_the_beginning_of_an_epoch_leaves_the_loop_the_numbers_that_it_had() -> None:
    stream = MicroBatches(loader(shuffle=True))
    for _ in range(LENGTH):
        next(stream)
    saved, before = stream.state_dict(), torch.get_rng_state()
    first, after = content(next(stream)), torch.get_rng_state()
    next(stream)
    stream.load_state_dict(saved)
    torch.set_rng_state(before)
    stream.seek(LENGTH, since=LENGTH)
    assert content(next(stream)) == first
    assert torch.equal(torch.get_rng_state(), after)


class Drawing(IterableDataset[int]):
    """Samples that are drawn as they are read, in each process that reads them."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(N):
            yield int(torch.randint(10**9, ())) + random.randrange(10)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stream_that_draws_is_repeated_whatever_the_loop_has_drawn(workers: int) -> None:
    def read(stream: MicroBatches, num: int) -> list[list[int]]:
        torch.rand(1)
        return [content(next(stream)) for _ in range(num)]

    stream = MicroBatches(DataLoader(Drawing(), batch_size=SIZE, num_workers=workers))
    first = read(stream, 15)
    saved = stream.state_dict()
    later = read(stream, 10)
    for position in (3, 12, 20):
        stream.seek(position)
        assert read(stream, 5) == (first + later)[position : position + 5]
    again = MicroBatches(DataLoader(Drawing(), batch_size=SIZE, num_workers=workers))
    again.load_state_dict(saved)
    again.seek(15)
    assert read(again, 10) == later
    stream.close()
    again.close()


@pytest.mark.parametrize("accumulate", [1, 2, 4, 20])
@pytest.mark.parametrize("name", ["shuffled", "stream", "a list"])
def test_the_last_step_of_an_epoch_has_what_is_left(name: str, accumulate: int) -> None:
    torch.manual_seed(0)
    data = LOADERS[name]()
    length = len(list(data))
    torch.manual_seed(0)
    micro = plain(data, 3 * length)
    expected = [
        micro[first : min(first + accumulate, begin + length)]
        for begin in range(0, 3 * length, length)
        for first in range(begin, begin + length, accumulate)
    ]
    torch.manual_seed(0)
    batches = Batches(LOADERS[name](), accumulate=accumulate)

    def read(index: int) -> list[list[int]]:
        batch = batches[index]
        return [content(each) for each in batch]

    assert [read(index) for index in range(len(expected))] == expected
    for index in (len(expected) - 1, 0, 1 % len(expected), 2 % len(expected), 0):
        assert read(index) == expected[index]


def test_the_epoch_of_a_batch_is_known_once_the_first_one_has_ended() -> None:
    assert [Batches(loader(), accumulate=2).pass_of(index) for index in (0, 5, 6, 11, 12)] == [0, 0, 1, 1, 2]
    assert Batches(DataLoader(Stream(), batch_size=SIZE)).pass_of(LENGTH) == 0


def test_an_unread_stream_can_be_entered_in_a_later_epoch() -> None:
    batches = Batches(DataLoader(Stream(), batch_size=SIZE), accumulate=4)  # 3 batches of an epoch
    expected = plain(DataLoader(Stream(), batch_size=SIZE), 2 * LENGTH)
    batches.seek(5, since=5)
    last = batches[5]
    assert [content(each) for each in last] == expected[LENGTH + 8 :]
    assert [content(each) for each in batches[0]] == expected[:4]


def test_micro_batches_are_loaded_when_they_are_asked_for() -> None:
    data = loader()
    step = Batches(data, accumulate=3)[0]
    assert (len(step), data.dataset.loaded) == (3, [])  # type: ignore[attr-defined]
    assert content(step[0]) == list(range(8))
    assert len(data.dataset.loaded) == 8  # type: ignore[attr-defined]
    assert [content(each) for each in step[-2:]] == [list(range(8, 16)), list(range(16, 24))]
    assert [len(each) for each in step] == [8, 8, 8]
    with pytest.raises(IndexError):
        step[3]


def test_a_step_leaves_memory_with_its_last_reference() -> None:
    step = Batches(loader(), accumulate=3)[0]
    micro_batch = weakref.ref(step[0])
    del step
    assert micro_batch() is None, "it waits for no garbage collection"


def test_a_step_that_was_only_half_read_does_not_shift_the_next_one() -> None:
    batches = Batches(loader(), accumulate=3)
    content(batches[0][0])
    assert content(batches[1][0]) == list(range(24, 32))


def test_samples_that_are_drawn_as_they_are_loaded_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    class Noisy(Numbers):
        def __getitem__(self, index: int) -> int:
            return int(torch.randint(100, ()))

    stream = MicroBatches(DataLoader(Noisy(N), batch_size=SIZE))
    for _ in range(30):
        next(stream)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "loading batches draws from the random numbers of torch"
    ]


def test_a_stream_that_ends_at_another_place_is_reported_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Changing(Stream):
        def __iter__(self) -> Iterator[int]:
            return iter(range(16 + 8 * (self.epoch % 3)))

    stream = MicroBatches(DataLoader(Changing(), batch_size=SIZE))
    assert [content(next(stream))[0] for _ in range(8)] == [0, 8] * 4
    assert "gave more batches than the 2 before" in caplog.text


def test_accumulate_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulate=0 must be at least 1"):
        Batches(loader(), accumulate=0)


@pytest.mark.parametrize("empty", [[], DataLoader(Numbers(N), batch_sampler=[])], ids=["list", "loader"])
def test_an_empty_loader_is_one_sentence(empty: Any) -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        next(MicroBatches(empty))


def test_the_batches_of_a_run_are_not_continued_with_others() -> None:
    saved = Batches(loader(), accumulate=2).state_dict()
    with pytest.raises(ConfigurationError, match=r"2 a step; this has \d+, 3"):
        Batches(loader(), accumulate=3).load_state_dict(saved)
    with pytest.raises(ConfigurationError, match="the same batch size"):
        Batches(DataLoader(Numbers(N), batch_size=SIZE + 1), accumulate=2).load_state_dict(saved)
    Batches(loader(), accumulate=2).load_state_dict(saved)
