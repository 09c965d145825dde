"""Detection state survives JSON exactly."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.encoding import load, pack, restore, restore_row, unpack
from monitor.detection.interventions.restorable import RestorableStep


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_an_array_survives_packing_bit_by_bit(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    again = unpack(json.loads(json.dumps(pack(array))))
    assert again.tobytes() == array.tobytes()
    assert again.flags.writeable


def test_a_part_that_cannot_be_read_raises_and_the_details_of_such_a_row_are_none() -> None:
    assert restore(int, "7") == restore_row(int, "7") == 7
    assert restore(int, None) is restore_row(int, None) is None
    for build, damaged in ((int, "seven"), (lambda state: state["missing"], {})):
        with pytest.raises((KeyError, ValueError)):
            restore(build, damaged)
        assert restore_row(build, damaged) is None


def test_only_fields_of_the_dataclass_are_known() -> None:
    assert load(RestorableStep, {"step": 3, "mood": 1}) == RestorableStep(3)
