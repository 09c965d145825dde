"""Numbers of a figure: what plotly.js can draw, and no bytes that nobody sees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.figures.float32 import LARGEST, SMALLEST, as_float32, drawable


@given(st.lists(st.floats()))
def test_drawable_sizes_have_bounds_and_keep_sign_zero_and_what_is_not_finite(values: list[float]) -> None:
    before, after = np.array(values, dtype=np.float64), drawable(np.array(values, dtype=np.float64))
    finite = np.isfinite(before)
    assert (np.sign(after[finite]) == np.sign(before[finite])).all()
    assert ((after[finite] == 0) | ((np.abs(after[finite]) >= SMALLEST) & (np.abs(after[finite]) <= LARGEST))).all()
    np.testing.assert_array_equal(after[~finite], before[~finite])


@pytest.mark.parametrize(
    "values", [[1e39, 1.0], [1e-39, 1.0], [5e-324, 0.0], [1e15, 1e15 + 0.125], [20_000.0, 20_000.001]]
)
def test_single_precision_is_not_used_where_it_would_show(values: list[float]) -> None:
    kept = as_float32(np.array(values))
    assert kept.dtype == np.float64
    assert kept.tolist() == values


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [2.5, 2.5], [2.0, 11.0, math.nan], [-3.0, math.inf]])
def test_usual_values_take_half_the_bytes(values: list[float]) -> None:
    assert as_float32(np.array(values, dtype=np.float64)).dtype == np.float32
