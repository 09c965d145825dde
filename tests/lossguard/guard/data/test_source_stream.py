import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lossguard.guard.data.source import Stream


class Shuffled:
    """Five numbers in another order in each pass, drawn one by one."""

    def __iter__(self) -> Iterator[int]:
        left = list(range(5))
        while left:
            yield left.pop(random.randrange(len(left)))


class OfItsEpoch:
    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(10 * self.epoch, 10 * self.epoch + 2 + self.epoch % 2))


def read(stream: Stream, indices: range) -> list[Any]:
    values = []
    for index in indices:
        stream.seek(index, since=index)
        values.append(stream[index])
        random.random()  # the loop draws in between
    return values


def test_passes_differ_and_each_is_repeated_exactly() -> None:
    random.seed(0)  # two of four passes over five numbers are equal by chance once in twenty runs
    stream = Stream(Shuffled())
    values = read(stream, range(20))
    passes = [values[first : first + 5] for first in range(0, 20, 5)]
    assert all(sorted(each) == list(range(5)) for each in passes)
    assert len(set(map(tuple, passes))) == 4
    for first in (3, 12, 0, 17, 19):
        assert read(stream, range(first, 20)) == values[first:]


def test_passes_of_different_lengths_are_found_again() -> None:
    stream = Stream(OfItsEpoch())
    expected = [0, 1, 10, 11, 12, 20, 21, 30, 31, 32]
    assert read(stream, range(10)) == expected
    assert [stream.pass_of(index) for index in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [stream[index] for index in (4, 6, 2, 9, 0)] == [12, 21, 10, 32, 0]


def test_a_new_process_goes_on_with_the_same_order() -> None:
    stream = Stream(Shuffled())
    first, state, later = read(stream, range(7)), stream.state_dict(), read(stream, range(7, 20))
    again = Stream(Shuffled())
    again.load_state_dict(state)
    assert read(again, range(7, 20)) == later
    assert read(again, range(7)) == first


def test_an_iterator_keeps_its_random_numbers_when_those_of_the_loop_are_restored() -> None:
    def drawn() -> Iterator[float]:
        while True:
            yield random.random() + float(np.random.rand()) + torch.rand(()).item()

    stream = Stream(drawn())
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first = read(stream, range(6))
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    stream.load_state_dict(stream.state_dict())
    assert stream.first_available(2) == 6
    assert not set(read(stream, range(6, 20))) & set(first)


def test_an_iterator_is_read_to_its_end() -> None:
    stream = Stream(iter("abc"))
    assert (stream[1], stream.first_available(0)) == ("b", 2)
    with pytest.raises(StopIteration):
        stream[3]


def test_an_empty_iterable_ends_at_once() -> None:
    with pytest.raises(StopIteration):
        Stream(set())[0]


class Shared:
    def __init__(self) -> None:
        self.numbers = (torch.full((2, 3), number) for number in itertools.count())

    def __iter__(self) -> Iterator[Any]:
        return self.numbers


class SharedWithin(Shared):
    def __iter__(self) -> Iterator[Any]:
        yield from self.numbers


class WithItsOwnGenerator:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __iter__(self) -> Iterator[float]:
        while True:
            yield self.generator.random()


@pytest.mark.parametrize("build", [Shared, SharedWithin, WithItsOwnGenerator])
def test_what_does_not_begin_again_is_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=f"{build.__name__} begins with another batch each time") as no:
        Stream(build())
    assert "\n" not in str(no.value)


def test_what_cannot_be_compared_is_not_refused() -> None:
    class Opaque:
        def __iter__(self) -> Iterator[object]:
            return iter([object()])

    assert isinstance(Stream(Opaque())[0], object)
