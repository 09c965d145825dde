from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lossguard import Guard
from tests.lossguard.scripted import Memory, ScriptedRun, rollback
from tests.trainer.data.windows import batches_of, make_batches
from tests.trainer.small import TEXT, small_recipe
from trainer.config import DataConfig
from trainer.data.batches import TokenBatches, open_batches
from trainer.data.windows import PADDING
from trainer.errors import UsageError


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000))
@pytest.mark.slow
def test_a_batch_is_a_pure_function_of_seed_and_index(seed: int, index: int) -> None:
    first, second = make_batches(seed=seed)[index], make_batches(seed=seed)[index]
    assert first.inputs_BT.equal(second.inputs_BT)
    assert first.targets_BT.equal(second.targets_BT)


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


def test_windows_that_are_held_out_are_never_trained_on(tmp_path: Path) -> None:
    data = DataConfig(path=str(tmp_path / "text.txt"), batch_size=4, held_out=0.1)
    train, held_out = open_batches(small_recipe(tmp_path, data=data, evaluate_windows=10**6))
    assert held_out is not None
    trained = {int(number) for index in range(2 * train.size) for number in train.window_numbers(index)}
    assert trained == set(range(train.size))
    held = b"".join(bytes(document[:-1]) for document in held_out.windows.shards)
    assert bytes(train.windows.shards[0][:-1]) + held == TEXT[:-1]


def test_data_shorter_than_one_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(b"x" * 70)
    data = DataConfig(path=str(tmp_path / "short.txt"), batch_size=4)
    with pytest.raises(
        UsageError, match=r"70 tokens, of which 3 windows of 16 tokens .* a batch needs 4; give more text"
    ):
        open_batches(small_recipe(tmp_path, data=data))


@pytest.mark.parametrize("other", [{"seed": 2}, {"data.batch_size": 3}])
def test_the_evaluation_set_is_the_same_for_every_seed_and_batch_size(tmp_path: Path, other: dict[str, int]) -> None:
    one = small_recipe(tmp_path, data=DataConfig(path=str(write_documents(tmp_path)), batch_size=4))
    data = replace(one.data, batch_size=other.get("data.batch_size", 4))
    digests = [open_batches(recipe)[1] for recipe in (one, replace(one, seed=other.get("seed", 1), data=data))]
    assert len({held_out.digest() for held_out in digests if held_out is not None}) == 1


def test_no_held_out_document_is_trained_on(tmp_path: Path) -> None:
    folder = write_documents(tmp_path)
    train, held_out = open_batches(
        small_recipe(tmp_path, data=DataConfig(path=str(folder), batch_size=4, held_out=0.2))
    )
    assert held_out is not None
    texts = [bytes(document) for document in held_out.windows.shards]
    assert 2 < len(texts) < 20
    assert not [text for text in texts if text in bytes(train.windows.shards[0])]


def write_documents(folder: Path) -> Path:
    """A folder of 40 short texts."""
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(f"{number} bottles of beer on the wall. " * (1 + number % 7))
    return folder / "texts"


def curriculum(tokens: NDArray[Any], *, steps: int, batch_size: int, seed: int, easy: bool = True) -> TokenBatches:
    shard = tokens.astype(np.uint8)
    return batches_of(shard, curriculum_steps=steps if easy else 0, batch_size=batch_size, seed=seed)


def windows_of(batches: TokenBatches, steps: int) -> NDArray[np.int64]:
    return np.concatenate([batches.window_numbers(index) for index in range(steps)])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**63 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_a_curriculum_has_the_windows_that_the_run_would_use_easy_ones_first(
    seed: int, steps: int, batch_size: int, content: int
) -> None:
    tokens = np.random.default_rng(content).integers(0, 4, size=3 * 30 + 1)
    sorted_run, plain = (
        curriculum(tokens, steps=steps, batch_size=batch_size, seed=seed, easy=easy) for easy in (True, False)
    )
    numbers = windows_of(sorted_run, steps)
    assert sorted(numbers) == sorted(windows_of(plain, steps))
    num_kinds = [len(set(window)) for window in sorted_run.windows.take(numbers)]
    assert num_kinds == sorted(num_kinds)
    beyond = range(steps, steps + 9)
    assert all((sorted_run.window_numbers(i) == plain.window_numbers(i)).all() for i in beyond)


def test_a_curriculum_is_exact_over_a_resume_and_a_rollback_that_skips() -> None:
    tokens = np.random.default_rng(0).integers(0, 50, size=3 * 300 + 1)

    def follow(run: ScriptedRun, memory: Memory, until: int) -> dict[int, list[int]]:
        batches = curriculum(tokens, steps=30, batch_size=4, seed=3)
        guard = Guard(run, checkpoints=memory, every=2)
        return {step: batch.inputs_BT.flatten().tolist() for step, batch in guard.steps(batches, until)}

    whole = follow(ScriptedRun(), Memory([]), 30)
    memory = Memory([])
    first, second = follow(ScriptedRun(), memory, 14), follow(ScriptedRun(), memory, 30)
    assert min(second) == 14
    assert first | second == whole
    after = follow(ScriptedRun({12: rollback(rewind_to=6, skip_from=6, skip_to=10)}), Memory([]), 30)
    expected = curriculum(tokens, steps=30, batch_size=4, seed=3)
    assert [after[step] for step in range(6)] == [whole[step] for step in range(6)]
    assert [after[step] for step in range(6, 30)] == [expected[i].inputs_BT.flatten().tolist() for i in range(10, 34)]


def test_documents_are_packed_or_padded(tmp_path: Path) -> None:
    folder = write_documents(tmp_path)
    rows = {}
    for kind in ("packed", "documents", "paragraphs"):
        data = DataConfig(path=str(folder), batch_size=4, rows=kind, held_out=0.0)
        rows[kind], _ = open_batches(small_recipe(tmp_path, data=data))
    assert rows["packed"].windows.padding == 0.0
    assert rows["documents"].windows.padding == rows["paragraphs"].windows.padding > 0
    batch = next(rows["documents"][i] for i in range(99) if (rows["documents"][i].targets_BT == PADDING).any())
    row = int((batch.targets_BT == PADDING).any(dim=1).nonzero()[0, 0])
    real = batch.targets_BT[row] != PADDING
    length = int(real.sum())
    assert real.tolist() == [position < length for position in range(16)]
    assert batch.inputs_BT[row, 1:length].equal(batch.targets_BT[row, : length - 1])
    assert batch.inputs_BT.min() >= 0
