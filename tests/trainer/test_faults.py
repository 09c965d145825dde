import math

import numpy as np
import pytest
import torch

from tests.trainer.test_data import _batches
from trainer.config import ModelConfig
from trainer.errors import UserMistake
from trainer.faults import FAULTS, Fault, FaultyBatches, StateFaults, flip_bit, parse_fault
from trainer.model import GPT


def test_a_fault_is_written_as_kind_step_and_count() -> None:
    assert parse_fault("corrupted_batches@320x12") == Fault("corrupted_batches", 320, 12)
    assert parse_fault("bit_flip@7") == Fault("bit_flip", 7, FAULTS["bit_flip"].count)


@pytest.mark.parametrize("text", ["bit_flip", "bit_flip@", "bit_flip@3x0", "bit_flip@-1", "@3", "bit flip@3"])
def test_a_fault_that_is_written_wrongly_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(UserMistake, match="KIND@STEPxN"):
        parse_fault(text)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserMistake, match="corrupted_batches, random_targets, bit_flip"):
        parse_fault("gremlins@3")


@pytest.mark.parametrize("kind", [name for name, kind in FAULTS.items() if kind.on_data])
def test_a_fault_in_the_data_is_keyed_by_batch_index_so_a_replay_meets_it_again(kind: str) -> None:
    clean = _batches()
    faulty = FaultyBatches(clean, [Fault(kind, 5, 3)])
    for index in range(12):
        struck = not faulty[index].targets_BT.equal(clean[index].targets_BT)
        assert struck == (5 <= index < 8)
        assert faulty[index].targets_BT.equal(faulty[index].targets_BT)
        assert faulty[index].inputs_BT.equal(clean[index].inputs_BT)
        assert faulty[index].targets_BT.dtype == torch.int64


def test_shuffled_targets_are_the_same_targets_in_another_order() -> None:
    clean = _batches()
    batch = FaultyBatches(clean, [Fault("corrupted_batches", 5, 1)])[5]
    assert batch.targets_BT.flatten().sort().values.equal(clean[5].targets_BT.flatten().sort().values)


def test_a_bit_flip_strikes_once_and_not_again_after_a_rollback() -> None:
    model = GPT(ModelConfig(layers=1, width=16, context=4))
    faults = StateFaults([Fault("bit_flip", 3, 2)], seed=0)
    before = torch.nn.utils.parameters_to_vector(model.parameters())
    struck = []
    for step in [0, 1, 2, 3, 4, 2, 3, 4]:
        faults.strike(step, model)
        now = torch.nn.utils.parameters_to_vector(model.parameters())
        struck.append(int((now != before).sum()))
        before = now
    assert struck == [0, 0, 0, 2, 0, 0, 0, 0]


def test_flipping_the_top_exponent_bit_makes_a_small_weight_enormous_and_flipping_it_back_restores_it() -> None:
    weights = torch.nn.Parameter(torch.full((2, 3), 0.02))
    flip_bit(weights, 4, 30)
    assert weights[1, 1].item() == pytest.approx(0.02 * 2.0**128)
    assert math.isfinite(weights[1, 1].item())
    flip_bit(weights, 4, 30)
    assert np.array_equal(weights.detach().numpy(), np.full((2, 3), 0.02, dtype=np.float32))
