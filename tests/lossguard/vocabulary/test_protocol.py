import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.protocol import (
    CAN_APPLY,
    MAX_STEP,
    MAX_TEXT,
    checked_step,
    decode_number,
    encode_number,
    is_step,
    is_text,
    is_time,
    remedies_in,
)

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(numbers)
def test_every_number_survives_strict_json(value: float) -> None:
    wire = json.dumps(encode_number(value), allow_nan=False)
    back = decode_number(json.loads(wire))
    assert back == value or (math.isnan(value) and back is not None and math.isnan(back))


def test_an_absent_number_stays_absent() -> None:
    assert encode_number(None) is None
    assert decode_number(None) is None


def test_an_integer_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a number"):
        decode_number(10**400)


@pytest.mark.parametrize("bad", ["nan", "inf", "1.0", "", True, [], {}])
def test_what_is_no_number_is_refused_with_its_value(bad: object) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        decode_number(bad)  # type: ignore[arg-type]


def test_a_step_is_a_whole_number_that_every_json_reader_keeps() -> None:
    assert [checked_step(step) for step in (0, MAX_STEP - 1)] == [0, 2**53 - 1]
    for bad in (-1, MAX_STEP, 2**70):
        assert not is_step(bad)
        with pytest.raises(ValueError, match=f"step {bad} is"):
            checked_step(bad)
    for unlike in (1.0, "1", True, None):
        assert not is_step(unlike)


def test_a_time_is_in_unix_seconds_and_plausible() -> None:
    assert all(map(is_time, (0, 0.0, 1.8e9, 1e11 - 1)))
    assert not any(map(is_time, (-1, 1e11, 1e300, math.nan, math.inf, 10**400, "1", True, None)))


def test_a_text_is_one_that_every_store_holds() -> None:
    assert is_text("a" * MAX_TEXT)
    assert not any(map(is_text, ("a" * (MAX_TEXT + 1), "\x00", "\ud800", 1, None)))


def test_only_what_can_be_the_name_of_a_remedy_is_one() -> None:
    """A dashboard shows the names."""
    names = ("clip", "", "![](https://elsewhere)", "Clip", "a" * 65)
    assert remedies_in(["rollback", *(CAN_APPLY + name for name in names)]) == ("clip",)
