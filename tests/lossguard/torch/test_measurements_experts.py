"""How unevenly tokens are spread over experts."""

from collections.abc import Sequence

import torch

from lossguard.torch import expert_imbalance, expert_loads


def imbalance(loads: Sequence[float] | Sequence[Sequence[float]]) -> float:
    return expert_imbalance(torch.tensor(loads))["expert_imbalance"].item()


def test_even_loads_are_0_and_one_expert_for_everything_is_the_number_of_the_others() -> None:
    assert imbalance([5, 5, 5, 5]) == 0.0
    assert imbalance([20, 0, 0, 0]) == 3.0


def test_the_worst_layer_counts_and_one_without_tokens_does_not() -> None:
    assert imbalance([[5, 5], [8, 2], [0, 0]]) == torch.tensor(0.6).item()


def test_loads_count_the_choices_of_a_router() -> None:
    choices = torch.tensor([[[0, 2], [2, 3]], [[2, 0], [0, 2]]])
    assert expert_loads(choices, 5).tolist() == [3, 0, 4, 1, 0]


def test_no_value_is_read_from_the_device() -> None:
    loads = expert_loads(torch.zeros(2, 8, 2, dtype=torch.int64, device="meta"), 16)
    assert expert_imbalance(loads)["expert_imbalance"].device.type == "meta"
