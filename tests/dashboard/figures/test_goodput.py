"""The bars of a run's time: every cause that took any, in shares of the whole."""

import pytest

from dashboard.figures.goodput import COLOURS, goodput_figure
from db.goodput.accounting import Breakdown, TimeCause


def breakdown(**seconds: float) -> Breakdown:
    return Breakdown({cause: seconds.get(cause, 0.0) for cause in TimeCause})


def test_the_bars_follow_each_other_from_nothing_to_all_of_the_time() -> None:
    figure = goodput_figure(breakdown(spike=10.0, training=90.0, hang=20.0))
    assert figure is not None
    (bars,) = figure.data
    assert list(bars.y) == ["Training 75.0%", "Hangs 16.7%", "Spikes 8.3%"]
    assert list(bars.base) == pytest.approx([0.0, 75.0, 75.0 + 50 / 3])
    assert bars.base[-1] + bars.x[-1] == pytest.approx(100.0)
    assert list(bars.customdata) == ["1 min 30 s", "20 s", "10 s"]


def test_no_time_has_no_bar() -> None:
    assert goodput_figure(breakdown()) is None


def test_every_cause_has_a_colour_of_its_own() -> None:
    assert len(set(COLOURS.values())) == len(TimeCause)
