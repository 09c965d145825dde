import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.data.held_out import HeldOut
from trainer.measurement.evaluation import HeldOutLoss, evaluate
from trainer.model import GPT

CPU = torch.device("cpu")
DOCUMENTS = [
    np.random.default_rng(number).integers(0, 256, size=length).astype(np.uint8)
    for number, length in enumerate([50, 7, 2, 33, 90])
]


def small_model(dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(layers=1, heads=2, width=16, context=16, dropout=dropout))


def held_out(num_windows: int = 10**6) -> HeldOut:
    return HeldOut(DOCUMENTS, 16, num_windows=num_windows, vocab_size=256)


def test_the_loss_is_the_mean_over_all_tokens_of_all_documents() -> None:
    """Computed again in float64, one window of one document after the other, without padding."""
    model = small_model()
    sums, counts = np.zeros(5), np.zeros(5)
    for number, document in enumerate(DOCUMENTS):
        for start in range(0, len(document) - 1, 16):
            window = torch.from_numpy(document[start : start + 17].astype(np.int64))
            with torch.no_grad():
                logits = model(window[None, :-1])[0].double()
            sums[number] += F.cross_entropy(logits, window[1:], reduction="sum").item()
            counts[number] += len(window) - 1
    found = evaluate(model, held_out(), CPU)
    assert found.mean == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    assert found.counts.tolist() == counts.tolist()
    assert found.sums == pytest.approx(sums, rel=1e-6)


def test_an_evaluation_draws_no_random_numbers_and_returns_to_training() -> None:
    model = small_model(dropout=0.5)
    state = torch.get_rng_state()
    assert evaluate(model, held_out(), CPU).mean == evaluate(model, held_out(), CPU).mean
    assert torch.get_rng_state().equal(state)
    assert model.training


def test_a_model_that_is_broken_has_a_loss_that_is_not_a_number() -> None:
    model = small_model()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    found = evaluate(model, held_out(), CPU)
    assert math.isnan(found.mean)
    assert math.isnan(found.standard_error)


def test_a_difference_on_the_same_windows_is_paired() -> None:
    generator = np.random.default_rng(0)
    counts, levels = generator.integers(10, 100, size=50), generator.normal(2.0, 0.5, size=50)
    one = HeldOutLoss(levels * counts, counts)
    other = HeldOutLoss((levels + generator.normal(0.1, 0.01, size=50)) * counts, counts)
    difference, error = other.minus(one)
    assert difference == pytest.approx(other.mean - one.mean)
    assert error == pytest.approx(0.01 / math.sqrt(50), rel=0.4)
    assert error < one.standard_error / 20
