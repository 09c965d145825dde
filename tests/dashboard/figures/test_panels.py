"""The titles and axes of panels."""

from typing import Any

import numpy as np
import pytest

from dashboard.axes import XAxis
from dashboard.figures.panels import NOTHING, NOTHING_ABOVE_0, panel_figure, panel_layout


def figure(metric: str, values: list[float], *, log: bool = False) -> Any:
    layout = panel_layout([metric], log={metric} if log else ())
    trace = {"type": "scatter", "x": list(range(len(values))), "y": values, "yaxis": "y", "name": "line"}
    return panel_figure(layout, [trace], XAxis.STEP, None, "")


@pytest.mark.parametrize(
    ("values", "log", "note"),
    [
        ([1.0, np.nan], False, ""),
        ([1.0], True, " - log scale"),
        ([np.nan, np.inf], False, f" - {NOTHING}"),
        ([], True, f" - {NOTHING}"),
        ([0.0, -1.0], True, f" - {NOTHING_ABOVE_0}"),
        ([0.0, 1.0], True, " - log scale, which has no place for values of 0 and below"),
        ([0.0, -1e308], False, " - larger values are drawn at 1e+300"),
        ([5e-324, 1.0], True, " - log scale, smaller values are drawn at 1e-300"),
    ],
)
def test_a_title_says_what_the_axis_of_its_panel_cannot_show(values: list[float], log: bool, note: str) -> None:
    drawn = figure("loss", values, log=log)
    assert drawn.layout.annotations[0].text == f"<b>Loss (nats per token)</b>{note}"
    assert drawn.layout.yaxis.showticklabels is (note[3:] not in (NOTHING, NOTHING_ABOVE_0))


def test_a_constant_stands_in_the_middle_of_an_axis_of_its_size() -> None:
    assert figure("lr", [0.001, np.nan, 0.001]).layout.yaxis.range == (0.0, 0.002)
    assert figure("lr", [0.001]).layout.yaxis.tickvals == (0.0, 0.001, 0.002)
    assert figure("mfu", [0.4137]).layout.yaxis.tickformat == ".4~p"
    assert figure("lr", [-3.0]).layout.yaxis.range == (-6.0, 0.0)
    assert figure("lr", [0.001, 0.002]).layout.yaxis.range is None
    assert figure("lr", [0.0]).layout.yaxis.range is None
    assert figure("lr", [1e308, -1e308]).layout.yaxis.range is None
    assert figure("lr", [0.001], log=True).layout.yaxis.range is None
