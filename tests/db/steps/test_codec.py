"""Numbers of a block come back bit for bit, and damage is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.steps.codec import (
    DamagedBlock,
    decode_bits,
    decode_floats,
    decode_steps,
    encode_bits,
    encode_floats,
    encode_steps,
)
from db.steps.step_block import Floats

bits64 = st.lists(st.integers(0, 2**64 - 1), max_size=40)


@given(bits64)
def test_every_float_comes_back_bit_for_bit_whatever_kind_of_nan_it_is(patterns: list[int]) -> None:
    values = np.array(patterns, dtype=np.uint64).view(np.float64)
    assert decode_floats(encode_floats(values), len(values)).tobytes() == values.tobytes()


@given(st.lists(st.floats(allow_nan=False), max_size=40).map(sorted), st.booleans())
def test_numbers_that_only_rise_or_only_fall_come_back_too(column: list[float], falls: bool) -> None:
    values = np.array(column[::-1] if falls else column)
    assert decode_floats(encode_floats(values), len(values)).tobytes() == values.tobytes()


@given(st.lists(st.integers(0, 2**62), unique=True, max_size=40).map(sorted), st.lists(st.booleans(), max_size=40))
def test_steps_and_bits_come_back(steps: list[int], bits: list[bool]) -> None:
    assert decode_steps(encode_steps(np.array(steps, dtype=np.int64)), len(steps)).tolist() == steps
    assert decode_bits(encode_bits(np.array(bits, dtype=np.bool_)), len(bits)).tolist() == bits


def test_what_neighbouring_steps_have_in_common_takes_little_space() -> None:
    steps: Floats = np.arange(1000.0)
    noise = np.random.default_rng(0).normal(0, 0.02, 1000)
    columns: list[tuple[Floats, int]] = [
        (np.full(1000, 3e-4), 50),  # a constant learning rate
        ((steps + 1) * 8192.0, 150),  # tokens
        (1.8e9 + 0.5 * steps, 200),  # regular times
        ((2.5 + noise).astype(np.float32).astype(np.float64), 3600),
    ]
    for values, most in columns:
        assert len(encode_floats(values)) < most


@pytest.mark.parametrize("stored", [b"", b"\x07", b"\x01", b"\x01abc", encode_floats(np.arange(9.0))[:-1]])
def test_a_cut_or_damaged_block_is_refused(stored: bytes) -> None:
    with pytest.raises(DamagedBlock):
        decode_floats(stored, 9)
    with pytest.raises(DamagedBlock):
        decode_floats(encode_floats(np.arange(8.0)), 9)
