"""Crosses on the upper edge of a panel for values that are not finite. Pure."""

from collections.abc import Sequence
from typing import Any

from dashboard.figures.panels import Panel
from dashboard.figures.style import PURPLE

NAME = "not finite"
"""Name in the legend."""
HEIGHT = 0.95
"""Height of the crosses in their panel, 0..1."""


def non_finite_crosses(
    panel: Panel,
    x: Any,
    hover: str,
    *,
    values: Sequence[str] | None = None,
    name: str = NAME,
    color: str = PURPLE,
    height: float = HEIGHT,
) -> list[dict[str, Any]]:
    """Return one trace with a cross at each position of `x`; none without positions.

    `hover` is a template of plotly's in which `%{customdata}` stands for the text of `values` at the position.
    """
    if not len(x):
        return []
    trace = {
        "type": "scatter",
        "x": x,
        "y": [height] * len(x),
        "yaxis": panel.mark_axis,
        "name": name,
        "legendgroup": name,
        "mode": "markers",
        "marker": {"symbol": "x-thin", "size": 9, "line": {"color": color, "width": 2.5}},
        "hovertemplate": f"{hover}<extra></extra>",
    }
    return [trace if values is None else trace | {"customdata": values}]
