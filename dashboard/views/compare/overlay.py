"""Several runs in one figure: a panel per metric, a colour per run, and the difference in held-out loss. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.data import held_out
from dashboard.data.held_out import DIFFERENCE, LOSS, MEASURED, Difference, Measured
from dashboard.figures.axis import Ruler
from dashboard.figures.curves import FEW, Look, Style, draw_branch
from dashboard.figures.float32 import singles
from dashboard.figures.panels import Panel, lay_out, stack
from dashboard.figures.style import GREY
from db.queries import Series

TOP = 8  # pixels of the margin: what the lines are stands above the figure, where it wraps


@dataclass(frozen=True, slots=True)
class Overlaid:
    """What is drawn of one run or segment."""

    style: Style
    by_metric: Mapping[str, Series]
    ruler: Ruler


def overlay_figure(
    lines: Sequence[Overlaid], metrics: Sequence[str], *, baseline: int = 0, look: Look | None = None
) -> go.Figure:
    """One panel per metric with all lines over one axis; `baseline` is the place of what others are held to."""
    look = look or Look()
    stacked = stack(list(metrics), lane=0, top=TOP)
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for panel in stacked.panels:
        if panel.metric == DIFFERENCE:
            traces += _differences(panel, lines, baseline)
            shapes.append(_zero(panel))
        else:
            seen = replace(look, smooth=0) if panel.metric in MEASURED else look
            traces += [
                trace
                for line in lines
                if panel.metric in line.by_metric
                for trace in draw_branch(panel, line.by_metric[panel.metric], line.ruler, line.style, seen)
            ]
    # Envelopes lie below all lines, those of the lines that come later too.
    traces.sort(key=lambda trace: trace["mode"] != "lines" or trace.get("hoverinfo") != "skip")
    quiet = {"shapes": shapes, "showlegend": False, "hoversubplots": "single"}
    figure = lay_out(stacked, look.along, look.window, look.revision, **quiet)
    figure.add_traces(traces)
    return figure


def _differences(panel: Panel, lines: Sequence[Overlaid], baseline: int) -> list[dict[str, Any]]:
    measured = [Measured.of(line.by_metric.get(LOSS, Series()), line.ruler) for line in lines]
    return [
        trace
        for place, line in enumerate(lines)
        if place != baseline
        for trace in _difference(panel, line.style, held_out.difference(measured[place], measured[baseline]))
    ]


def _difference(panel: Panel, style: Style, found: Difference) -> list[dict[str, Any]]:
    """A line through the places, and crosses on the upper edge where there is no number."""
    if not len(found.x):
        return []
    usual = {"type": "scatter", "name": style.name, "legendgroup": style.name}
    how = "" if found.exact else " (baseline interpolated)"
    broken = found.x[np.isnan(found.y)]
    line = {
        "x": found.x,
        "y": singles(found.y),
        "yaxis": panel.values,
        "mode": "lines+markers" if len(found.x) <= FEW else "lines",
        "line": {"color": style.color, "width": style.width, "dash": style.dash},
        "marker": {"size": 5},
        "hovertemplate": f"minus baseline{style.note} %{{y:+.4~g}}{how}<extra></extra>",
    }
    crosses = {
        "x": broken,
        "y": [style.cross_height] * len(broken),
        "yaxis": panel.marks,
        "mode": "markers",
        "marker": {"symbol": "x-thin", "size": 9, "line": {"color": style.cross, "width": 2.5}},
        "hovertemplate": f"minus baseline{style.note} not finite<extra></extra>",
    }
    return [usual | line] + ([usual | crosses] if len(broken) else [])


def _zero(panel: Panel) -> dict[str, Any]:
    """The baseline itself."""
    return {
        "type": "line",
        "x0": 0,
        "x1": 1,
        "xref": "paper",
        "y0": 0,
        "y1": 0,
        "yref": panel.values,
        "layer": "below",
        "line": {"color": GREY, "width": 1.4},
    }
