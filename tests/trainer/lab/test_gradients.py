import pytest

from trainer.lab.gradients import PROBABILITIES, VOCAB_SIZE, gradients_at


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_gradients_are_those_of_the_formulas(p: float) -> None:
    """Cross-entropy: p - 1. Squared error: 2 p (p - 1 - (sum of squares - p)), from the softmax's derivative."""
    row = gradients_at(p)
    assert row.cross_entropy == pytest.approx(1 - p, rel=1e-5)
    spread = p**2 + (1 - p) ** 2 / (VOCAB_SIZE - 1)
    assert row.squared_error_spread == pytest.approx(abs(2 * p * (p - 1 - (spread - p))), rel=1e-3, abs=1e-7)
    one_wrong = p**2 + (1 - p) ** 2
    assert row.squared_error_one_wrong == pytest.approx(abs(2 * p * (p - 1 - (one_wrong - p))), rel=1e-3, abs=1e-7)
