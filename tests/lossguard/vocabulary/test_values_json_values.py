import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lossguard.vocabulary.values import plain_json, storable


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
