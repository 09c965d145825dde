"""The bar of a run's time: every cause that took any, in shares of the whole."""

import pytest

from dashboard.figures.goodput import COLOURS, goodput_figure
from db.goodput.accounting import Breakdown, TimeCause


def breakdown(**seconds: float) -> Breakdown:
    return Breakdown({cause: seconds.get(cause, 0.0) for cause in TimeCause})


def test_the_parts_of_the_bar_add_up_to_all_of_the_time() -> None:
    figure = goodput_figure(breakdown(training=90.0, spike=20.0, hang=10.0))
    assert [trace.name for trace in figure.data] == ["Training 75.0%", "Spikes 16.7%", "Hangs 8.3%"]
    assert sum(trace.x[0] for trace in figure.data) == pytest.approx(100.0)
    assert "Hangs: 10 s (8.3%)" in figure.data[2].hovertemplate


def test_no_time_has_no_bar() -> None:
    assert goodput_figure(breakdown()) is None


def test_every_cause_has_a_colour_of_its_own() -> None:
    assert len(set(COLOURS.values())) == len(TimeCause)
