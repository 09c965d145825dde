"""Axes of a picture, and their ticks."""

import numpy as np
import pytest

from dashboard.report.scales import Scale, scale_for, tick_text


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
