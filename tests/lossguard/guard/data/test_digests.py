from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossguard.guard.data.digests import MAX_VALUES, row_digests


def digests(batch: Any) -> list[int]:
    rows = row_digests(batch)
    assert rows is not None
    assert rows.is_ready()
    return rows.values().tolist()


TOKENS = torch.arange(24).reshape(4, 6)
Pair = namedtuple("Pair", "inputs targets")


@dataclass(slots=True)
class Batch:
    inputs: Any
    targets: Any


@pytest.mark.parametrize(
    "pack",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        lambda x, y: {"input_ids": x, "labels": y, "name": "a", "scale": 1.0},
        Pair,
        Batch,
        lambda x, y: SimpleNamespace(inputs=x, targets=y),
    ],
)
def test_a_row_of_several_tensors_is_one_sample_however_the_batch_is_packed(pack: Callable[[Any, Any], Any]) -> None:
    x, y = TOKENS, TOKENS + 1
    found = digests(pack(x, y))
    assert len(set(found)) == 4
    assert found == digests((x, y)) != digests((y, x))
    assert digests(pack(x.flip(0), y.flip(0))) == found[::-1]
    y = y.clone()
    y[2, 3] += 1
    assert [a == b for a, b in zip(found, digests(pack(x, y)), strict=True)] == [True, True, False, True]


@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "bool"]
)
def test_every_type_of_number_is_read(kind: str) -> None:
    values = (TOKENS % 2 if kind == "bool" else TOKENS).to(getattr(torch, kind))
    assert len(set(digests(values))) == (1 if kind == "bool" else 4)
    if kind != "bfloat16":
        assert digests(values.numpy()) == digests(values)


def test_floats_of_few_bits_have_different_digests() -> None:
    values = np.arange(40_000, dtype="float64").reshape(-1, 2)
    assert len(set(digests(values))) == len(values)


@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(2, 40))
def test_rows_of_random_tokens_differ(seed: int, rows: int, width: int) -> None:
    tokens = np.random.default_rng(seed).integers(50_000, size=(rows, width))
    assert len(set(digests(tokens))) == len({tuple(row) for row in tokens.tolist()})


def test_of_a_large_batch_evenly_spaced_values_are_read() -> None:
    images = torch.rand(32, 3, 64, 64)
    assert len(set(digests((images, torch.zeros(32))))) == 32
    assert digests(images[:, :, 1:, :]) != digests(images)
    assert len(digests(torch.rand(2, MAX_VALUES))) == 2


def test_a_tensor_of_one_dimension_is_one_sample() -> None:
    x, y = torch.arange(10), torch.arange(1, 11)
    assert len(digests((x, y))) == 1
    assert digests((x, y)) != digests((x.flip(0), y))


def test_labels_belong_to_their_rows() -> None:
    labels = torch.tensor([1, 2, 3, 4])
    assert [a == b for a, b in zip(digests((TOKENS, labels)), digests((TOKENS, labels.flip(0))), strict=True)] == [
        False
    ] * 4
    positions = torch.arange(6)[None]  # of all rows
    assert digests({"x": TOKENS, "positions": positions}) == digests(TOKENS)


def test_micro_batches_follow_each_other() -> None:
    first, second = {"x": TOKENS}, {"x": TOKENS + 100}
    assert digests([first, second]) == digests(first) + digests(second)
    assert digests([(TOKENS, TOKENS), (TOKENS + 1, TOKENS)]) == digests((TOKENS, TOKENS)) + digests(
        (TOKENS + 1, TOKENS)
    )


def test_texts_are_samples_too() -> None:
    assert len(set(digests(["a", "b", "c"]))) == 3
    assert digests([b"a"]) == digests([b"a"]) != digests([b"b"])
    assert len(digests({"text": ["a", "b"], "n": 3})) == 1
    assert len(digests([3, 4, 5])) == 1
    rows = TOKENS.repeat(1, 100).tolist()
    assert len(set(digests(rows))) == 4
    assert len(digests({"input_ids": rows, "raw": [b"a"]})) == 1


@pytest.mark.parametrize(
    "batch", [3, 2.5, None, True, object(), torch.tensor(3), torch.zeros(0, 4), {"x": object()}, np.array(["a"])]
)
def test_what_cannot_be_recognised_has_none(batch: Any) -> None:
    assert row_digests(batch) is None


def test_a_view_and_its_copy_are_the_same_sample() -> None:
    assert digests(TOKENS.T) == digests(TOKENS.T.contiguous())
    assert digests(TOKENS.numpy()[:, ::-1]) == digests(TOKENS.flip(1))
    weights = torch.nn.Parameter(torch.rand(2, 3))
    assert digests(weights) == digests(weights.detach())
