import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.shuffle import Shuffle

sizes = st.integers(1, 700)
seeds = st.integers(0, 2**63 - 1)


@given(sizes, seeds, st.integers(0, 5))
def test_a_shuffle_holds_every_item_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(Shuffle(size, seed, epoch)(np.arange(size))) == list(range(size))


@given(sizes, seeds, st.data())
def test_a_place_holds_the_same_item_whatever_it_is_asked_with(size: int, seed: int, data: st.DataObject) -> None:
    shuffle = Shuffle(size, seed, 0)
    place = data.draw(st.integers(0, size - 1))
    assert shuffle(np.array([place]))[0] == shuffle(np.arange(size))[place]


def test_two_epochs_and_two_seeds_have_different_orders() -> None:
    places = np.arange(1000)
    orders = [Shuffle(1000, seed, epoch)(places).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_shuffle_leaves_few_neighbours_together() -> None:
    order = Shuffle(10_000, 3, 0)(np.arange(10_000))
    assert (np.abs(np.diff(order)) == 1).mean() < 0.002


def test_a_shuffle_of_ten_billion_items_needs_no_table() -> None:
    items = Shuffle(10**10, 1, 0)(np.array([0, 10**9, 10**10 - 1]))
    assert len(set(items.tolist())) == 3
    assert all(0 <= item < 10**10 for item in items)
