"""Metrics of several series as a figure."""

from dashboard.data.facts import Curve
from dashboard.figures.families import family_figure
from db.queries import Series


def curve(*means: float | None) -> Curve:
    return Curve(Series(first_step=[*range(len(means))], mean=[*means]), {})


def test_each_family_has_a_panel_with_a_line_for_each_series() -> None:
    curves = {"source_loss/web": curve(2.0, None, 1.0), "layer_grad_norm/norm": curve(0.1), "loss": curve(3.0)}
    figure = family_figure(curves, revision="r")
    assert figure is not None
    assert [trace.name for trace in figure.data] == ["web", "norm"]
    assert [each.text for each in figure.layout.annotations] == [
        "<b>Loss of each source (nats per token)</b>",
        "<b>Grad norm of each layer group (L2, before clipping)</b>",
    ]


def test_without_such_metrics_there_is_no_figure() -> None:
    assert family_figure({"loss": curve(1.0)}, revision="r") is None
