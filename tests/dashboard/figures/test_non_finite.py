"""Values that are not finite are crosses on the upper edge of their panel."""

from dashboard.figures.non_finite import HEIGHT, non_finite_crosses
from dashboard.figures.panels import panel_layout

PANEL = panel_layout(["loss"]).panels[0]


def test_every_position_has_a_cross_and_its_text() -> None:
    (trace,) = non_finite_crosses(PANEL, [3, 5], "loss: %{customdata}", values=["NaN", "infinity"])
    assert (trace["x"], trace["y"], trace["yaxis"]) == ([3, 5], [HEIGHT, HEIGHT], PANEL.mark_axis)
    assert trace["customdata"] == ["NaN", "infinity"]
    assert trace["hovertemplate"] == "loss: %{customdata}<extra></extra>"


def test_without_such_values_there_is_no_trace() -> None:
    assert non_finite_crosses(PANEL, [], "loss") == []
