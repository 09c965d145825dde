"""Detection state survives JSON exactly."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.effects import Outlier
from monitor.detection.encoding import known_fields, pack, restore, unpack


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_an_array_survives_packing_bit_by_bit(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    again = unpack(json.loads(json.dumps(pack(array))))
    assert again.tobytes() == array.tobytes()
    assert again.flags.writeable


def test_a_part_that_cannot_be_read_is_none() -> None:
    assert restore(int, "7") == 7
    assert restore(int, "seven") is None
    assert restore(lambda state: state["missing"], {}) is None
    assert restore(int, None) is None


def test_only_fields_of_the_dataclass_are_known() -> None:
    assert known_fields(Outlier, {"step": 3, "mood": 1}) == {"step": 3}
