import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.protocol import decode_number, encode_number

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(numbers)
def test_every_number_survives_strict_json(value: float) -> None:
    wire = json.dumps(encode_number(value), allow_nan=False)
    back = decode_number(json.loads(wire))
    assert back == value or (math.isnan(value) and back is not None and math.isnan(back))


def test_an_absent_number_stays_absent() -> None:
    assert encode_number(None) is None
    assert decode_number(None) is None


@pytest.mark.parametrize("bad", ["nan", "inf", "1.0", "", True, [], {}])
def test_what_is_no_number_is_refused_with_its_value(bad: object) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        decode_number(bad)  # type: ignore[arg-type]
