import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossguard.vocabulary.protocol import on_device, plain, plain_json, storable

TENSORS = [torch.tensor(2.5, requires_grad=True), torch.tensor(2.5, dtype=torch.bfloat16)]


@pytest.mark.parametrize("value", [2.5, np.float32(2.5), np.float64(2.5), np.array(2.5), *TENSORS])
def test_scalars_of_every_library_become_python_numbers(value: Any) -> None:
    assert plain(value) == 2.5
    assert type(plain(value)) is float


@pytest.mark.parametrize(("value", "number"), [(True, 1), (np.int64(3), 3), (7, 7), (Decimal("0.5"), 0.5)])
def test_whole_numbers_and_booleans_count(value: Any, number: float) -> None:
    assert plain(value) == number


def test_integers_beyond_a_float_become_infinite() -> None:
    assert plain(10**400) == math.inf
    assert plain(-(10**400)) == -math.inf
    assert plain(2**60) == float(2**60)


@pytest.mark.parametrize("value", ["1.0", b"1", [1.0], {"a": 1}, torch.ones(2), np.ones(2), None, object()])
def test_what_is_no_scalar_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        plain(value)


def test_only_what_lies_on_an_accelerator_waits() -> None:
    assert not on_device(torch.ones(()))
    assert not on_device(np.ones(()))
    assert not on_device(1.0)
    assert on_device(torch.ones((), device="meta"))


@dataclass
class Config:
    lr: float
    betas: tuple[float, float]


def test_a_configuration_of_any_types_becomes_strict_json() -> None:
    value = {"nested": Config(math.inf, (0.9, 0.95)), 3: np.float32(0.5), "path": Path("a/b"), "none": None, "on": True}
    assert plain_json(value) == {
        "nested": {"lr": "Infinity", "betas": [0.9, 0.95]},
        "3": 0.5,
        "path": "a/b",
        "none": None,
        "on": True,
    }


def test_characters_that_no_store_takes_are_replaced() -> None:
    assert storable("a\0b\ud800c") == "a\u2400b?c"
