import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.windows import PADDING, Windows

SHARDS = [np.arange(8, dtype=np.uint8), np.zeros(0, np.uint8), np.arange(100, 107, dtype=np.uint8)]


def test_windows_do_not_cross_from_one_shard_into_the_next() -> None:
    windows = Windows(SHARDS, 3)
    assert len(windows) == 4
    assert windows.take(np.arange(4)).tolist() == [
        [0, 1, 2, 3],
        [3, 4, 5, 6],
        [100, 101, 102, 103],
        [103, 104, 105, 106],
    ]


def test_padded_windows_also_hold_the_rest_of_a_shard() -> None:
    windows = Windows(SHARDS, 3, padded=True)
    assert len(windows) == 5
    assert windows.take(np.array([2, 4])).tolist() == [[6, 7, PADDING, PADDING], [103, 104, 105, 106]]
    assert windows.padding == pytest.approx(2 / 15)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 7))
def test_every_token_but_the_first_of_a_shard_is_a_target_of_padded_windows_once(lengths: list[int], T: int) -> None:
    shards = [np.full(length, position, dtype=np.uint8) for position, length in enumerate(lengths)]
    windows = Windows(shards, T, padded=True)
    numbers = np.arange(len(windows))
    targets = windows.take(numbers)[:, 1:]
    assert [(targets == position).sum() for position in range(len(shards))] == [max(0, n - 1) for n in lengths]
    assert all(
        (row[row != PADDING] == shard).all() for row, shard in zip(targets, windows.shards_of(numbers), strict=True)
    )
    assert windows.padding == pytest.approx((targets == PADDING).mean() if len(windows) else 0.0)
