"""Panels of several lines over one x axis."""

import numpy as np

from dashboard.figures.line_panels import Line, LinePanel, line_panels

X = np.array([0.0, 1.0, 2.0])


def test_a_line_keeps_its_colour_and_its_legend_entry_in_all_panels() -> None:
    panels = [
        LinePanel("Power", [Line("gpu0", X, X), Line("gpu1", X, X)], from_zero=True),
        LinePanel("Norm", [Line("gpu1", X, X)], log=True),
    ]
    figure = line_panels(panels, {"title": {"text": "Step"}}, revision="r", marks=[1.5])
    colours = [(trace.name, trace.line.color, trace.showlegend, trace.yaxis) for trace in figure.data]
    assert colours[1][:2] == colours[2][:2]
    assert [entry[2:] for entry in colours] == [(True, "y"), (True, "y"), (False, "y2")]
    assert [each.text for each in figure.layout.annotations] == ["<b>Power</b>", "<b>Norm</b>"]
    assert (figure.layout.yaxis.rangemode, figure.layout.yaxis2.type) == ("tozero", "log")
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    assert figure.layout.shapes[0].x0 == 1.5


def test_names_from_outside_are_no_markup() -> None:
    figure = line_panels([LinePanel("a", [Line("<b>x</b>", X, X)])], {}, revision="r")
    assert "<b>x" not in figure.data[0].name
