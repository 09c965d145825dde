import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lossguard.checkpoints.copies import Copies, copies_in, differing_copies
from lossguard.run.ranks import Ranks


class Copied(Ranks):
    """One of the ranks that hold the same states."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class Normed(nn.Module):
    """A module with statistics that each rank has of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(700)


def copies(*states: dict[str, Any]) -> list[Copies]:
    """What each rank finds of its state of `Normed`."""
    each = Normed()
    return [copies_in({"m": (each, state)}, Copied(rank, len(states))) for rank, state in enumerate(states)]


def state_of(seed: int, weight: Tensor) -> dict[str, Any]:
    return {"norm.weight": weight, "norm.running_mean": torch.full((700,), seed)}


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_copies_are_equal_where_only_the_statistics_of_each_rank_differ(num_ranks: int) -> None:
    weight = torch.randn(700, 3)
    found = copies(*(state_of(rank, weight.clone()) for rank in range(num_ranks)))
    assert sum(each.balance for each in found) == 0
    assert differing_copies([each.digests for each in found]) is None


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_copy_with_one_other_bit_is_found(kind: torch.dtype) -> None:
    weight = torch.randn(701, 3).to(kind)
    for place in random.Random(0).sample(range(8 * weight.nbytes), 40):
        other = weight.clone()
        other.view(-1).view(torch.uint8)[place // 8] ^= 1 << place % 8
        found = copies(state_of(0, weight), state_of(0, other), state_of(0, weight))
        assert sum(each.balance for each in found) != 0
        assert differing_copies([each.digests for each in found]) == "rank 1 and the others differ in m.norm.weight"


def test_blocks_of_a_tensor_that_have_changed_places_are_found() -> None:
    weight = torch.randn(4, 1024)
    for other in (weight.flip(0), weight[[0, 2, 1, 3]], weight.view(2, 2, 1024).transpose(0, 1).reshape(4, 1024)):
        found = copies(state_of(0, weight), state_of(0, other))
        assert sum(each.balance for each in found) != 0


def test_a_copy_at_an_odd_place_in_memory_is_like_any_other() -> None:
    memory = torch.randn(3001)
    found = copies(state_of(0, memory[1:]), state_of(0, memory[1:].clone()))
    assert sum(each.balance for each in found) == 0
