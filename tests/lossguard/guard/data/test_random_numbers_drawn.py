import numpy as np
import pytest
import torch

from lossguard.torch import Drawn
from tests.lossguard.windows import get_batch


def test_a_batch_follows_from_seed_rank_and_index_alone() -> None:
    batches = Drawn(get_batch, seed=3)
    first = [batches[index] for index in range(4)]
    torch.manual_seed(9)
    assert all(torch.equal(Drawn(get_batch, seed=3)[index], first[index]) for index in (2, 0, 3, 1))
    others = [Drawn(get_batch, seed=4)[0], Drawn(get_batch, seed=3, rank=1)[0], *first]
    assert len({tuple(each[:, 0].tolist()) for each in others}) == 6
    assert torch.equal(Drawn(get_batch, seed=3, rank=0)[2], first[2])


def test_it_takes_nothing_from_the_random_numbers_of_the_loop() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Drawn(get_batch)[5]
    assert torch.equal(torch.rand(3), expected)


def test_arguments_are_passed_on() -> None:
    assert Drawn(lambda split, size: (split, size), "train", 7)[0] == ("train", 7)


def test_the_micro_batches_of_a_step_are_drawn_one_by_one_and_once() -> None:
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(float(np.random.rand()))
        return drawn[-1]

    step = Drawn(draw, accumulate=3)[2]
    assert (len(step), drawn) == (3, [])
    assert list(step) == list(step) == drawn
    assert step[1:] == drawn[1:]
    assert drawn[:3] == [Drawn(draw)[number] for number in (6, 7, 8)]
    assert list(Drawn(draw, accumulate=1)[6]) == drawn[:1], "as a loop takes its number from a setting"


def test_accumulate_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulate=0 must be at least 1 micro-batch"):
        Drawn(get_batch, accumulate=0)
