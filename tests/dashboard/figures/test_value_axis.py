"""The part of the values that an axis shows, its scale, and what plotly.js gets of a trace."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.figures.value_axis import (
    LARGEST,
    SMALLEST,
    always_log,
    as_float32,
    axis_range,
    drawable,
    log_axes,
    packed,
)

ORDINARY = [2.0 + math.exp(-step / 30) for step in range(100)]


def shown(values: list[float], *, log: bool = False, fit_all: bool = False) -> tuple[float, float] | None:
    column = np.array(values, dtype=np.float64)
    return axis_range(column, column, log=log, fit_all=fit_all)


@pytest.mark.parametrize(
    ("extreme", "is_shown"), [([3.5], True), ([141.0], False), ([-50.0], False), ([141.0] * 10, True)]
)
def test_an_axis_ends_before_a_few_extreme_values(extreme: list[float], is_shown: bool) -> None:
    low, high = shown(ORDINARY + extreme) or (0.0, 0.0)
    assert (low <= extreme[0] <= high) is is_shown
    assert low < 2.0
    assert high > 3.0


@pytest.mark.parametrize("steps", [100, 400])
def test_a_falling_loss_has_half_of_the_axis_for_all_but_its_first_fifth(steps: int) -> None:
    loss = [2.2 + 8.8 * math.exp(-20 * step / steps) for step in range(steps)]
    low, high = shown(loss) or (0.0, 0.0)
    assert max(loss[steps // 5 :]) - 2.2 > 0.4 * (high - low)
    assert high < 3 < (shown(loss, fit_all=True) or (0.0, 0.0))[1]
    assert (shown(loss[:19]) or (0.0, 0.0))[1] > 11, "of few values none is left out"


def test_a_log_axis_has_room_for_a_factor_of_thirty_and_not_for_a_perplexity_beyond_all_bounds() -> None:
    calm = [8.0 + 0.01 * step for step in range(100)]
    assert (shown([*calm, 200.0], log=True) or (0, 0))[1] > math.log10(200)
    assert (shown([*calm, 1e46], log=True) or (0, 0))[1] < 1.1


@given(st.lists(st.floats() | st.floats(0, 10), max_size=60), st.booleans(), st.booleans())
def test_a_range_is_never_empty_and_plotly_can_draw_its_ends(values: list[float], log: bool, fit_all: bool) -> None:
    found = shown(values, log=log, fit_all=fit_all)
    if found is None:
        assert not any(math.isfinite(value) and (value > 0 or not log) for value in values)
    else:
        assert -1e300 <= found[0] < found[1] <= 1e300
        assert not log or max(map(abs, found)) <= 300


@pytest.mark.parametrize(
    ("loss", "log"),
    [
        ([2.0, 2.1, 40.0], True),
        ([2.0, 3.0], False),
        ([1e308] * 2, False),
        ([2.0, 2.0, 1e308], True),
        ([-1.0, 1e9], False),
    ],
)
def test_a_high_peak_makes_a_log_axis_whatever_its_size(loss: list[float], log: bool) -> None:
    assert ("loss" in log_axes({"loss": [loss]})) is log


@pytest.mark.parametrize(
    ("values", "log"), [([], True), ([None, math.nan], True), ([0.0, 3.0], True), ([0.0, -2.0], False)]
)
def test_an_axis_that_is_always_logarithmic_is_linear_where_it_could_show_nothing(
    values: list[float | None], log: bool
) -> None:
    assert ("grad_norm" in always_log({"grad_norm": [values]})) is log


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
