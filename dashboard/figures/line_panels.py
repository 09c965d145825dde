"""A figure of panels below each other over one x axis, each with several lines: no bands, no branches. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import Floats, compact
from dashboard.figures.float32 import as_float32
from dashboard.figures.panels import SPIKES
from dashboard.figures.style import NUMBER, RUN_COLOURS, VERMILLION, base_figure

GAP, TOP, BOTTOM = 34, 40, 46
"""Pixels; the gap holds the title of the next panel, the upper margin the legend."""


@dataclass(frozen=True, slots=True)
class PanelLine:
    """A line of float64[N] positions and values; a NaN is a gap."""

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class LinePanel:
    title: str
    lines: Sequence[PanelLine]
    tick_format: str = "~g"
    log: bool = False
    from_zero: bool = False
    """True if its axis begins at 0."""


def line_panels(
    panels: Sequence[LinePanel],
    x_axis: dict[str, Any],
    *,
    revision: str,
    panel_height: int = 130,
    marks: Sequence[float] = (),
) -> go.Figure:
    """`x_axis`: as plotly's layout has it; `panel_height` in pixels; `marks`: positions of lines through all panels."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: RUN_COLOURS[place % len(RUN_COLOURS)] for place, name in enumerate(names)}
    inside = len(panels) * (panel_height + GAP)
    layout: dict[str, Any] = {"annotations": [], "shapes": [_mark(x) for x in marks], "hovermode": "x unified"}
    traces: list[dict[str, Any]] = []
    shown: set[str] = set()
    for place, panel in enumerate(panels):
        suffix = "" if place == 0 else str(place + 1)
        top = 1 - (place * (panel_height + GAP) + GAP) / inside
        bottom = max(top - panel_height / inside, 0.0)
        layout[f"yaxis{suffix}"] = _value_axis(panel) | {"domain": [bottom, top], "anchor": "x"}
        layout["annotations"].append(_title(panel.title, top))
        for line in panel.lines:
            traces.append(_trace(line, f"y{suffix}", colours[line.name], with_legend=line.name not in shown))
            shown.add(line.name)
    layout["xaxis"] = {"anchor": f"y{len(panels)}" if len(panels) > 1 else "y", "zeroline": False, **SPIKES, **x_axis}
    figure = base_figure(height=inside + TOP + BOTTOM, top=TOP, bottom=BOTTOM, revision=revision, **layout)
    figure.add_traces(traces)
    return figure


def _value_axis(panel: LinePanel) -> dict[str, Any]:
    axis: dict[str, Any] = {"tickformat": panel.tick_format, "zeroline": False, "showgrid": True, "nticks": 4}
    return axis | ({"type": "log", "dtick": "D2"} if panel.log else {"rangemode": "tozero"} if panel.from_zero else {})


def _title(text: str, top: float) -> dict[str, Any]:
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"}
    return {"text": f"<b>{formatting.escape_plotly(text)}</b>", "showarrow": False, "font": {"size": 13}, **place}


def _trace(line: PanelLine, axis: str, colour: str, *, with_legend: bool) -> dict[str, Any]:
    name = formatting.escape_plotly(line.name)
    return {
        "type": "scatter",
        "x": compact(line.x),
        "y": as_float32(line.y),
        "yaxis": axis,
        "name": name,
        "legendgroup": name,
        "showlegend": with_legend,
        "mode": "lines" if len(line.x) > 60 else "lines+markers",
        "line": {"color": colour, "width": 1.5},
        "marker": {"size": 4},
        "hovertemplate": f"{name} %{{y:{NUMBER}}}<extra></extra>",
    }


def _mark(x: float) -> dict[str, Any]:
    ends = {"x0": x, "x1": x, "xref": "x", "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", "line": {"color": VERMILLION, "width": 1.2, "dash": "dot"}, **ends}
