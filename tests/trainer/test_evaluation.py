import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.data.held_out import HeldOut
from trainer.evaluation import HeldOutLoss, evaluate
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


@pytest.mark.parametrize("num_windows", [3, 7, 10**6])
def test_the_batch_size_changes_the_loss_at_most_by_rounding(num_windows: int) -> None:
    model = small_model()
    losses = [evaluate(model, held_out(num_windows), CPU, batch_size=size).mean for size in (1, 2, 3, 5, 64)]
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-6)


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


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(1, 50))
def test_documents_of_equal_length_have_the_standard_error_of_a_mean(num_documents: int, length: int) -> None:
    means = np.random.default_rng(num_documents).normal(2.0, 0.3, num_documents)
    found = HeldOutLoss(means * length, np.full(num_documents, length))
    assert found.mean == pytest.approx(means.mean())
    assert found.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(num_documents))


def test_the_standard_error_is_the_scatter_of_the_mean_over_draws_of_documents() -> None:
    """Simulated: 60 documents of 1 to 100 tokens, whose losses depend on the document and on the token."""
    generator = np.random.default_rng(0)

    def draw() -> HeldOutLoss:
        counts = generator.integers(1, 101, size=60)
        levels = generator.normal(2.0, 0.3, size=60)
        return HeldOutLoss(levels * counts + generator.normal(0.0, np.sqrt(counts)), counts)

    draws = [draw() for _ in range(2000)]
    scatter = np.std([each.mean for each in draws])
    assert np.mean([each.standard_error for each in draws]) == pytest.approx(scatter, rel=0.06)


def test_a_difference_on_the_same_windows_is_paired() -> None:
    generator = np.random.default_rng(0)
    counts, levels = generator.integers(10, 100, size=50), generator.normal(2.0, 0.5, size=50)
    one = HeldOutLoss(levels * counts, counts)
    other = HeldOutLoss((levels + generator.normal(0.1, 0.01, size=50)) * counts, counts)
    difference, error = other.minus(one)
    assert difference == pytest.approx(other.mean - one.mean)
    assert error == pytest.approx(0.01 / math.sqrt(50), rel=0.4)
    assert error < one.standard_error / 20


def test_a_difference_on_other_windows_is_refused() -> None:
    one, other = (HeldOutLoss(np.ones(2), np.array(counts)) for counts in ([1, 2], [2, 1]))
    with pytest.raises(ValueError, match="same windows"):
        one.minus(other)


def test_one_document_has_no_standard_error() -> None:
    assert math.isnan(HeldOutLoss(np.ones(1), np.array([3])).standard_error)
