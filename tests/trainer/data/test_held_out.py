import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.held_out import HeldOut
from trainer.data.windows import PADDING
from trainer.errors import UsageError


def held_out(lengths: list[int], *, num_windows: int = 10**6, context: int = 4) -> HeldOut:
    """Documents of these lengths, whose tokens are their numbers."""
    documents = [np.full(length, number, dtype=np.uint8) for number, length in enumerate(lengths)]
    return HeldOut(documents, context, num_windows=num_windows, vocab_size=256)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 30), max_size=8), st.integers(1, 9))
def test_every_target_is_in_one_batch_whatever_the_batch_size(lengths: list[int], batch_size: int) -> None:
    data = held_out(lengths)
    targets = [batch.targets_BT.numpy().flatten() for batch in data.batches(batch_size)]
    counts = np.bincount(np.concatenate([np.empty(0, int), *targets]) - PADDING, minlength=101 + len(lengths))[100:]
    assert counts[: len(lengths)].tolist() == [max(0, length - 1) for length in lengths]


@settings(max_examples=30)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.integers(1, 30))
def test_the_windows_are_spread_evenly_over_the_documents(lengths: list[int], num_windows: int) -> None:
    data = held_out(lengths, num_windows=num_windows)
    assert (
        len(data) == min(num_windows, sum((length + 2) // 4 for length in lengths)) == len(set(data.numbers.tolist()))
    )
    given = np.bincount(data.documents, minlength=data.num_documents)
    unfinished = given[given < data.windows.counts]
    assert given.max() - (unfinished.min() if len(unfinished) else given.max()) <= 1


def test_a_token_beyond_the_vocabulary_is_refused() -> None:
    data = HeldOut([np.full(9, 200, dtype=np.uint8)], 4, num_windows=9, vocab_size=100)
    with pytest.raises(UsageError, match="outside the vocabulary of 100"):
        list(data.batches(2))
