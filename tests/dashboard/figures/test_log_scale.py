"""Which panels have a log axis."""

import math

import pytest

from dashboard.figures.log_scale import always_log, log_axes


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
