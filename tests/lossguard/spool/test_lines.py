"""A line says by its checksum whether it is as it was written."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.spool.lines import DamagedLine, from_line, intact_end, to_line

RECORD = {"step": 7, "time": 1.5, "metrics": {"loss": 2.5, "grad_norm": math.nan}}


def test_a_line_is_read_as_it_was_written_also_by_a_release_without_checksums() -> None:
    expected = {**RECORD, "metrics": {"loss": 2.5, "grad_norm": "NaN"}}
    assert from_line(to_line(RECORD)) == expected
    assert {**json.loads(to_line(RECORD)), "crc": ""} == {**expected, "crc": ""}


@given(st.integers(0, len(to_line(RECORD)) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_found(position: int, bit: int) -> None:
    line = bytearray(to_line(RECORD))
    line[position] ^= 1 << bit
    with pytest.raises(DamagedLine):
        from_line(bytes(line))


def test_a_line_without_checksum_is_damaged_and_an_intact_one_is_found_behind_it() -> None:
    with pytest.raises(DamagedLine, match="has no checksum"):
        from_line(b'{"step":7,"time":1.5,"metrics":{}}\n')
    torn = to_line(RECORD)[:30]
    assert intact_end(torn + to_line(RECORD)) == len(torn)
    assert intact_end(torn) is None
