"""Axes of a picture, and their ticks."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.report.scales import EXACT, Scale, scale_for, tick_text


def test_ticks_are_round_numbers_and_powers_of_ten() -> None:
    assert Scale(0.0, 9.3, 0, 1).ticks(5) == [0, 2, 4, 6, 8]
    assert Scale(-1.0, 3.0, 0, 1, log=True).ticks(5) == [0.1, 1, 10, 100, 1000]
    assert Scale(0.0, 1.0, 0, 1, log=True).ticks(5) == [1, 2, 5, 10]
    assert Scale(0.0, 0.2, 0, 1, log=True).ticks(5) == pytest.approx([1, 1.2, 1.4])


@pytest.mark.parametrize("values", [[], [np.nan], [3.0, 3.0], [0.0], [-1.0, -5.0], [1e-300, 1e300]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_holds_whatever_values_come(values: list[float], log: bool) -> None:
    scale = scale_for([np.array(values)], None, 0.0, 100.0, log=log, padding=0.05)
    places = scale.at(values)
    assert np.isfinite(scale.ticks(5)).all()
    assert ((places[np.isfinite(places)] >= 0) & (places[np.isfinite(places)] <= 100)).all()


def test_ticks_are_written_as_the_pages_write_them() -> None:
    labels = [tick_text(1500.0, ",d"), tick_text(0.25, ".0%"), tick_text(2e6, "~s"), tick_text(3e-4, ".3~g")]
    assert labels == ["1,500", "25%", "2M", "0.0003"]
    assert [tick_text(2.8078e-4, "~g"), tick_text(-1234567.0, "~g")] == ["2.8078e-4", "-1.2346e6"]


EXTREMES = [0.0, 5e-324, -5e-324, 1e-320, 1e308, -1e308, sys.float_info.max, -sys.float_info.max, np.nan, np.inf, 1e15]


@given(
    st.lists(st.floats() | st.floats(-10, 10) | st.sampled_from(EXTREMES), max_size=6),
    st.booleans(),
    st.integers(3, 9),
)
def test_an_axis_has_a_few_short_ticks_and_holds_every_value_that_it_can_show(
    values: list[float], log: bool, max_ticks: int
) -> None:
    column = np.array(values, dtype=np.float64)
    scale = scale_for([column], None, 0.0, 100.0, log=log, padding=0.05)
    places = scale.at(column)[np.isfinite(column) & ((column > 0) | (not log))]
    assert ((places >= -1e-6) & (places <= 100 + 1e-6)).all()
    ticks = scale.ticks(max_ticks)
    assert 1 <= len(ticks) <= 3 * max_ticks + 5
    assert np.isfinite(ticks).all()
    for form in (",d", ".0%", "~s", "~g"):
        assert max(len(tick_text(tick, form)) for tick in ticks) <= len("-9,007,199,254,740,990")


def test_neighbouring_steps_near_the_largest_one_are_a_range() -> None:
    steps = np.array([2.0**53 - 60, 2.0**53 - 2])
    assert scale_for([steps], None, 0.0, 100.0, log=False, padding=0.0, resolution=EXACT).at(steps).tolist() == [0, 100]


def test_a_range_too_narrow_to_be_divided_has_one_tick() -> None:
    assert Scale(0.0, 1e-323, 0, 1).ticks(4) == [0.0]
