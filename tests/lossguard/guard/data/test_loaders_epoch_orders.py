import json
import random

import pytest
import torch

from lossguard.checkpoints.state import generators
from lossguard.guard.data.loaders import EpochOrders, changed_generators


def draw(orders: EpochOrders, epoch: int, *, is_due: bool = True) -> tuple[int, float]:
    with orders.drawing(epoch, is_due=is_due):
        return int(torch.randint(10**9, ())), random.random()


def test_the_order_of_an_epoch_is_drawn_once_and_then_the_same() -> None:
    orders = EpochOrders([1])
    first, second = draw(orders, 0), draw(orders, 1)
    assert first != second
    before = str(generators())
    assert (draw(orders, 0), draw(orders, 1), draw(orders, 0, is_due=False)) == (first, second, first)
    assert str(generators()) == before


def test_a_state_of_plain_values_gives_the_same_order_in_a_new_process() -> None:
    orders, again = EpochOrders([1]), EpochOrders([1])
    drawn = draw(orders, 3)
    again.load_state_dict(json.loads(json.dumps(orders.state_dict())))
    assert draw(again, 3) == drawn


@pytest.mark.parametrize(("base_seed", "changed"), [(True, set()), (False, {"torch"})])
def test_the_seed_of_the_workers_is_no_order(base_seed: bool, changed: set[str]) -> None:
    before = generators()
    torch.empty((), dtype=torch.int64).random_()
    assert changed_generators(before, base_seed=base_seed) == changed
