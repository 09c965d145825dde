"""What plotly.js gets of a trace: numbers that it can draw, and no bytes that nobody sees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.figures.packed_trace import LARGEST, SMALLEST, as_float32, drawable, packed


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


TRACE = {"y": [1.0, 1e290, math.nan], "hovertemplate": "loss %{y:.4~g} (%{customdata[0]:.4~g})<extra></extra>"}


def test_a_line_to_a_value_that_a_browser_cannot_reach_is_drawn_as_far_as_it_can_and_says_the_value() -> None:
    found = packed(TRACE, (0.0, 2.0), log=False)
    assert found["y"].tolist() == pytest.approx([1.0, 2e6 + 2, math.nan], nan_ok=True)
    assert found["text"] == ["1", "1.000e+290", "NaN"]
    assert found["hovertemplate"] == "loss %{text} (%{customdata[0]:.4~g})<extra></extra>"


@pytest.mark.parametrize(("shown", "log"), [(None, False), ((1.0, 2.0), True)])
def test_other_axes_keep_the_place_of_every_value(shown: tuple[float, float] | None, log: bool) -> None:
    found = packed(TRACE, shown, log=log)
    np.testing.assert_array_equal(found["y"], TRACE["y"])
    assert found["hovertemplate"] == TRACE["hovertemplate"]
