"""Several runs in one figure: no line hides another one."""

import math
from typing import Any

import numpy as np
import pytest

from dashboard.axes import PLAIN_STEPS, StepAxis
from dashboard.data.comparison.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS
from dashboard.figures.curves import ChartOptions
from dashboard.views.compare.controls import line_style
from dashboard.views.compare.figure import OverlayLine, overlay_figure
from db.queries import Series
from tests.dashboard.series import bucketed, plain


def line(place: int, step_axis: StepAxis = PLAIN_STEPS, **by_metric: Series) -> OverlayLine:
    return OverlayLine(line_style(place, f"run {place}"), by_metric, step_axis)


def of(figure: Any, name: str, axis: str = "y") -> list[Any]:
    return [trace for trace in figure.data if trace.name == name and trace.yaxis == axis]


def test_envelopes_show_a_spike_of_one_step_and_lie_below_all_lines() -> None:
    figure = overlay_figure([line(0, loss=bucketed()), line(1, loss=bucketed())], ["loss"])
    highest = [max(trace.y) for trace in figure.data if trace.fill == "tonexty"]
    assert highest == pytest.approx([9.0, 9.0])
    kinds = [trace.name == "smallest .. largest" for trace in figure.data]
    assert kinds == sorted(kinds, reverse=True)


def test_non_finite_values_are_crosses_in_the_runs_colour_at_a_height_of_its_own() -> None:
    figure = overlay_figure([line(place, loss=plain([1.0, None])) for place in range(2)], ["loss"])
    crosses = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.marker.line.color for trace in crosses] == [line_style(0, "").color, line_style(1, "").color]
    assert [list(trace.x) for trace in crosses] == [[1], [1]]
    assert crosses[0].y[0] != crosses[1].y[0]


def test_differences_are_drawn_around_a_zero_line_for_the_baseline() -> None:
    runs = [line(0, held_out_loss=plain([2.0, 1.0])), line(1, held_out_loss=plain([2.5, 0.5]))]
    figure = overlay_figure(runs, [HELD_OUT_LOSS, HELD_OUT_DIFFERENCE], baseline=0)
    assert not of(figure, "run 0", "y2")
    (shown,) = of(figure, "run 1", "y2")
    assert list(shown.y) == pytest.approx([0.5, -0.5])
    (zero,) = figure.layout.shapes
    assert (zero.y0, zero.y1, zero.yref) == (0, 0, "y2")
    figure = overlay_figure(runs, [HELD_OUT_LOSS, HELD_OUT_DIFFERENCE], baseline=1)
    assert list(of(figure, "run 0", "y2")[0].y) == pytest.approx([-0.5, 0.5])


def test_a_non_finite_difference_is_a_gap_and_a_cross() -> None:
    runs = [line(0, held_out_loss=plain([2.0, 1.0, 1.0])), line(1, held_out_loss=plain([2.5, None, 0.5]))]
    figure = overlay_figure(runs, [HELD_OUT_DIFFERENCE])
    shown, crosses = (trace for trace in figure.data if trace.name == "run 1")
    assert list(shown.y) == pytest.approx([0.5, math.nan, -0.5], nan_ok=True)
    assert (list(crosses.x), crosses.yaxis) == ([1], "y101")


def test_the_hover_text_says_that_the_baseline_is_interpolated() -> None:
    shifted = StepAxis(np.array([0.0, 2.0]), np.array([0.5, 2.5]))
    runs = [line(0, held_out_loss=plain([2.0, 1.0, 1.0])), line(1, shifted, held_out_loss=plain([2.0, 1.0, 1.0]))]
    (shown,) = overlay_figure(runs, [HELD_OUT_DIFFERENCE]).data
    assert "baseline interpolated" in shown.hovertemplate
    assert list(shown.x) == [0.5, 1.5]


def test_held_out_losses_are_never_smoothed() -> None:
    one = line(0, loss=plain([3.0, 1.0]), held_out_loss=plain([3.0, 1.0]))
    loss, held_out = overlay_figure([one], ["loss", HELD_OUT_LOSS], options=ChartOptions(smooth=10)).data[-2:]
    assert loss.y[1] > 1.0
    assert list(held_out.y) == [3.0, 1.0]
