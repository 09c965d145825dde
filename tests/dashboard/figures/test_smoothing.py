"""Smoothed lines."""

import math

import pytest

from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import Marks
from dashboard.figures.smoothing import smoothed
from tests.dashboard.series import plain, traces


def test_a_gap_is_a_gap_and_teaches_nothing() -> None:
    line = smoothed(plain([2.0, None, 2.0]), 10)
    assert math.isnan(line[1])
    assert line[2] == pytest.approx(2.0)


def test_a_smoothed_spike_of_one_step_is_still_there_at_its_height() -> None:
    values: list[float | None] = [1.0, 1.0, 9.0, 1.0]
    figure = run_figure({"loss": Curve(plain(values), {})}, Marks(), options=ChartOptions(smooth=100))
    (raw,) = traces(figure, "live line, raw")
    assert list(raw.y) == values
    assert max(traces(figure, "live line")[0].y) < 5
