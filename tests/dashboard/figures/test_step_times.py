"""The figure of a stall or a slowdown shows how long each step took."""

import numpy as np

from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.step_times import STEP_SECONDS, with_step_times
from monitor.detection import Rows


def test_the_time_of_a_row_is_that_since_the_row_before_per_step() -> None:
    rows = Rows.of([10, 11, 15, 16], loss=[3.0] * 4)
    timed = Rows(rows.steps, rows.metrics, rows.present, np.array([100.0, 101.0, 109.0, 108.0]))
    shown = with_step_times(IncidentWindow(10, 16, True, timed, {}, None))
    values = shown.original.metrics[STEP_SECONDS]
    assert np.array_equal(values, [np.nan, 1.0, 2.0, np.nan], equal_nan=True)
    assert shown.replacement is None


def test_rows_without_times_stay_as_they_are() -> None:
    window = IncidentWindow(0, 1, True, Rows.of([0, 1], loss=[3.0, 3.0]), {}, None)
    assert with_step_times(window).original is window.original
