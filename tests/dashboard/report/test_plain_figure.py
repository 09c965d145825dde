"""The values of a figure read the same as from plotly."""

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.report.plain_figure import PlainFigure


def test_what_was_given_is_there_and_what_was_not_is_none_or_a_group_without_values() -> None:
    figure = go.Figure(
        [{"type": "scatter", "x": [1, 2], "y": [3.0, 4.0], "yaxis": "y2", "line": {"color": "red"}}],
        {"yaxis2": {"domain": [0, 0.5]}, "shapes": [{"type": "line", "x0": 1, "line": {"dash": "dot"}}]},
    )
    plain = PlainFigure(figure)
    (trace,) = plain.data
    assert (list(trace.x), trace.yaxis, trace.line.color) == ([1, 2], "y2", "red")
    assert (trace.mode, trace.line.dash, trace.marker.line.color) == (None, None, None)
    assert list(plain.layout["yaxis2"].domain) == [0, 0.5]
    assert plain.layout.xaxis.title.text is None
    assert [(shape.x0, shape.line.dash) for shape in plain.layout.shapes] == [(1, "dot")]
    assert plain.layout.annotations == []
