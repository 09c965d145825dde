import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.ngram import NGram

TOKENS = st.lists(st.integers(0, 3), max_size=12)


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_the_probabilities_after_any_history_add_to_one(seen: list[int], history: list[int], order: int) -> None:
    reference = NGram(np.array([seen]), order=order, vocab_size=4)
    probabilities = [reference.probability(token, tuple(history)) for token in range(4)]
    assert min(probabilities) > 0.0
    assert sum(probabilities) == pytest.approx(1.0)


def test_each_order_is_mixed_with_the_shorter_one_by_the_number_of_different_followers() -> None:
    """In 0 1 0 1 0 2, the token 0 is followed by 1 twice and by 2 once."""
    reference = NGram(np.array([[0, 1, 0, 1, 0, 2]]), order=2, vocab_size=4)
    unigram = (2 + 3 / 4) / (6 + 3)
    assert reference.probability(1, ()) == pytest.approx(unigram)
    assert reference.probability(1, (0,)) == pytest.approx((2 + 2 * unigram) / (3 + 2))
    assert reference.probability(1, (3,)) == pytest.approx(unigram)  # 3 was never seen
    assert reference.probability(1, (2, 2, 0)) == reference.probability(1, (0,))
