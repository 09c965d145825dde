import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from lossguard.guard.data.random_numbers import OwnNumbers, leave_out, seeds_of_loop


def drawn() -> list[float]:
    """A number of each generator."""
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    seed_all()


def test_the_numbers_of_the_loop_are_not_touched() -> None:
    numbers = OwnNumbers()
    with numbers.lent():
        own = drawn()
    after = drawn()
    seed_all()
    assert after == drawn()
    assert not set(own) & set(after)


def test_they_are_put_back_when_the_data_raises() -> None:
    before = seeds_of_loop()
    with suppress(KeyError), OwnNumbers().lent():
        raise KeyError(drawn())
    assert seeds_of_loop() == before


def test_they_go_on_where_they_were_and_begin_anew_when_asked() -> None:
    numbers = OwnNumbers()
    sequences = []
    for begun in ((3,), (3,), (4,)):
        numbers.begin(*begun)
        sequence = []
        for _ in range(2):
            with numbers.lent():
                sequence += drawn()
            drawn()  # the loop draws in between
        sequences.append(sequence)
    assert sequences[0] == sequences[1]
    assert len({*sequences[0], *sequences[2]}) == 12


def test_they_follow_from_the_seeds_of_the_loop() -> None:
    first = OwnNumbers()
    assert OwnNumbers().seeds == first.seeds
    drawn()
    assert not set(OwnNumbers().seeds.values()) & set(first.seeds.values())
    again = OwnNumbers(first.seeds)
    for each in (first, again):
        each.begin(7)
    with first.lent():
        expected = drawn()
    with again.lent():
        assert drawn() == expected


def test_one_seed_gives_each_generator_numbers_of_its_own() -> None:
    with OwnNumbers({"python": 5}).lent():
        bits = [random.getrandbits(32), int(np.random.randint(2**32)), int(torch.randint(2**32, ()))]
    assert len(set(bits)) == 3


def test_a_skip_changes_the_next_numbers_the_same_way_each_time() -> None:
    expected: dict[tuple[int, int], list[float]] = {}
    for since, batch in ((3, 5), (3, 6), (3, 5)):
        seed_all()
        leave_out(since, batch)
        numbers = drawn()
        assert expected.setdefault((since, batch), numbers) == numbers
    assert len({number for numbers in expected.values() for number in numbers}) == 6


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_a_seed_follows_from_the_generator_of_its_own_name_alone(draw: Callable[[], Any]) -> None:
    before = seeds_of_loop()
    draw()
    assert sum(before[name] != seed for name, seed in seeds_of_loop().items()) == 1
