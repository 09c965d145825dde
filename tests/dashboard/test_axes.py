"""Steps along tokens, time and FLOPs."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from dashboard import formatting
from dashboard.axes import RunAxes, StepAxis, compact


def test_a_ruler_is_exact_at_its_points_and_straight_between() -> None:
    step_axis = StepAxis.through({10: 1000.0, 0: 0.0, 20: 3000.0})
    assert step_axis.at([0, 10, 15, 20]).tolist() == [0, 1000, 2000, 3000]
    assert step_axis.step_at(2000) == 15


def test_a_step_that_was_computed_twice_lies_on_the_branch_that_is_meant() -> None:
    run_axes = RunAxes(StepAxis.through({0: 0.0, 100: 900.0}), {0: StepAxis.through({50: 100.0, 60: 120.0})})
    assert [run_axes.at(0, 55), run_axes.at(0, 40), run_axes.at(1, 55)] == [110.0, 360.0, 495.0]


def test_a_clock_that_is_put_back_does_not_break_a_zoom() -> None:
    hour = 3_600_000.0
    autumn = 1000 * datetime(2026, 10, 25, 0, 50, tzinfo=UTC).timestamp()  # ten minutes before Berlin's clocks go back
    moved = formatting.on_clock(np.array([autumn, autumn + hour / 2]), ZoneInfo("Europe/Berlin"))
    assert (moved - [autumn, autumn + hour / 2]).tolist() == [2 * hour, hour]
    step_axis = StepAxis(np.array([0.0, 1.0, 2.0]), np.array([moved[0], moved[1], moved[0] + 10 * hour]))
    assert step_axis.step_at(moved[0] + 10 * hour) == 2.0


@pytest.mark.parametrize("name", [None, "", "Nowhere/Else", "Europe", "../etc/passwd"])
def test_a_time_zone_that_nobody_knows_is_utc(name: str | None) -> None:
    assert formatting.moment(0.0, formatting.zone(name)) == "1970-01-01 00:00:00"


@pytest.mark.parametrize(
    ("positions", "dtype"),
    [([0, 2**31 - 1], "int32"), ([2**31], "float64"), ([0.5], "float64"), ([1e300], "float64"), ([], "int32")],
)
def test_positions_are_small_integers_or_floats_and_never_int64(positions: list[float], dtype: str) -> None:
    held = compact(np.array(positions))
    assert (held.dtype, held.tolist()) == (np.dtype(dtype), positions)
