"""Means with standard errors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.data.estimate import Estimate


def test_an_estimate_is_shown_to_two_digits_of_its_error() -> None:
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))
    assert str(estimate) == "2.00 \N{PLUS-MINUS SIGN} 0.58"


@pytest.mark.parametrize("values", [[2.5], [2.5, 2.5, 2.5]])
def test_one_value_and_equal_values_have_no_error_to_show(values: list[float]) -> None:
    assert str(Estimate.of(values)) == "2.5"


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0], [1e308, 1e308]])
def test_a_mean_over_what_is_not_finite_says_so(values: list[float]) -> None:
    assert str(Estimate.of(values)) == "not finite"


@given(st.lists(st.floats(), max_size=5))
def test_whatever_was_measured_fits_a_cell(values: list[float]) -> None:
    assert 0 < len(str(Estimate.of(values))) < 60
