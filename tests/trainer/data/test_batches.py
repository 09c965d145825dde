from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.data.windows import make_batches
from tests.trainer.small import TEXT, small_recipe
from trainer.config import DataConfig, ModelConfig
from trainer.data.batches import Windows, open_batches, tokenizer
from trainer.errors import UsageError


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000))
def test_a_batch_is_a_pure_function_of_seed_and_index(seed: int, index: int) -> None:
    first, second = make_batches(seed=seed)[index], make_batches(seed=seed)[index]
    assert first.inputs_BT.equal(second.inputs_BT)
    assert first.targets_BT.equal(second.targets_BT)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 200))
def test_a_jump_arrives_where_a_walk_does(index: int) -> None:
    walked = make_batches()
    for earlier in range(index):
        walked[earlier]
    assert walked[index].inputs_BT.equal(make_batches()[index].inputs_BT)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 1000))
def test_no_window_repeats_within_an_epoch_and_none_is_left_out(size: int, batch_size: int, seed: int) -> None:
    batches = make_batches(num_windows=size, seed=seed, batch_size=min(size, batch_size))
    num_batches = -(-2 * size // batches.batch_size)
    numbers = np.concatenate([batches.window_numbers(index) for index in range(num_batches)])
    assert sorted(numbers[:size]) == sorted(numbers[size : 2 * size]) == list(range(size))


def test_targets_are_the_inputs_shifted_by_one() -> None:
    batch = make_batches()[7]
    assert batch.inputs_BT.shape == batch.targets_BT.shape == (4, 3)
    assert batch.targets_BT.equal(batch.inputs_BT + 1)


def test_windows_do_not_cross_from_one_shard_into_the_next() -> None:
    windows = Windows([np.arange(8, dtype=np.uint8), np.zeros(0, np.uint8), np.arange(100, 107, dtype=np.uint8)], 3)
    assert len(windows) == 4
    assert windows.take(np.array([0, 1, 2, 3])).tolist() == [
        [0, 1, 2, 3],
        [3, 4, 5, 6],
        [100, 101, 102, 103],
        [103, 104, 105, 106],
    ]


def test_an_index_below_zero_is_no_batch() -> None:
    with pytest.raises(IndexError, match="begin at 0"):
        make_batches()[-1]


def test_the_held_out_tail_is_never_trained_on(tmp_path: Path) -> None:
    train, held_out = open_batches(
        small_recipe(tmp_path, data=DataConfig(path=str(tmp_path / "text.txt"), batch_size=4, held_out=0.1))
    )
    assert held_out is not None
    trained = {int(number) for index in range(2 * train.size) for number in train.window_numbers(index)}
    held = {int(number) for index in range(2 * held_out.size) for number in held_out.window_numbers(index)}
    assert trained == set(range(train.size))
    assert held == set(range(train.size, (len(TEXT) - 1) // 16))


def test_data_shorter_than_one_batch_is_refused_with_the_length_that_would_do(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(b"x" * 100)
    data = DataConfig(path=str(tmp_path / "short.txt"), batch_size=4)
    with pytest.raises(UsageError, match=r"100 tokens, and a batch of 4 x 16 tokens .* needs 129"):
        open_batches(small_recipe(tmp_path, data=data))


def test_a_token_beyond_the_vocabulary_deep_in_the_data_is_found_when_its_batch_comes() -> None:
    batches = make_batches()
    batches.vocab_size = 100
    with pytest.raises(UsageError, match="outside the vocabulary of 100"):
        [batches[index] for index in range(13)]


def test_the_whole_data_can_be_trained_on(tmp_path: Path) -> None:
    data = DataConfig(path=str(tmp_path / "text.txt"), batch_size=4, held_out=0.0)
    train, held_out = open_batches(small_recipe(tmp_path, data=data, model=ModelConfig(width=16, context=16)))
    assert held_out is None
    assert train.size == (len(TEXT) - 1) // 16


def test_text_is_read_as_bytes_and_shards_with_what_the_recipe_names(tmp_path: Path) -> None:
    text = small_recipe(tmp_path)
    assert tokenizer(text, open_batches(text)[0].windows) == "bytes"
    np.arange(2000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    for configured, known in (("gpt2", "gpt2"), ("", None)):
        data = DataConfig(path=str(tmp_path / "a.bin"), batch_size=2, tokenizer=configured)
        shards = small_recipe(tmp_path, data=data, model=ModelConfig(heads=1, width=16, context=16, vocab_size=2000))
        assert tokenizer(shards, open_batches(shards)[0].windows) == known
