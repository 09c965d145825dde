import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.data.shuffle import MAX_SORTED_SIZE, Shuffle

sizes = st.integers(1, 700)
seeds = st.integers(0, 2**63 - 1)


@given(sizes, seeds, st.integers(0, 5))
def test_a_shuffle_holds_every_item_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(Shuffle(size, seed, epoch)(np.arange(size))) == list(range(size))


def test_a_shuffle_of_ten_billion_items_needs_no_table() -> None:
    items = Shuffle(10**10, 1, 0)(np.array([0, 10**9, 10**10 - 1]))
    assert len(set(items.tolist())) == 3
    assert all(0 <= item < 10**10 for item in items)


def chi_squared(counts: NDArray[np.int64], expected: float, degrees: int) -> float:
    """Pearson's statistic in standard deviations above its mean (Wilson and Hilferty's approximation)."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * degrees)
    return float(((statistic / degrees) ** (1 / 3) - (1 - spread)) / np.sqrt(spread))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_items_are_equally_likely(size: int) -> None:
    orders = Counter(tuple(Shuffle(size, seed, 0)(np.arange(size)).tolist()) for seed in range(6000))
    counts = np.zeros(math.factorial(size), dtype=np.int64)
    counts[: len(orders)] = list(orders.values())
    assert chi_squared(counts, 6000 / len(counts), len(counts) - 1) < 4


@pytest.mark.parametrize("size", [7, 12, 37])
def test_an_item_has_every_place_equally_often(size: int) -> None:
    counts = np.zeros((size, size), dtype=np.int64)
    for seed in range(2000):
        counts[np.arange(size), Shuffle(size, seed, 0)(np.arange(size))] += 1
    assert chi_squared(counts, 2000 / size, (size - 1) ** 2) < 4


@pytest.mark.slow
def test_an_item_of_the_first_size_without_a_table_has_every_place_equally_often() -> None:
    size, counts = MAX_SORTED_SIZE + 1, np.zeros((MAX_SORTED_SIZE + 1,) * 2, dtype=np.int64)
    for seed in range(5 * size):
        counts[np.arange(size), Shuffle(size, seed, 0)(np.arange(size))] += 1
    assert chi_squared(counts, 5, (size - 1) ** 2) < 4
