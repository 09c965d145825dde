"""Several runs in one figure: a panel per metric, a colour per run, and the difference in held-out loss. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.data import held_out
from dashboard.data.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS, HELD_OUT_METRICS, Difference, HeldOutCurve
from dashboard.figures.axis import StepAxis
from dashboard.figures.curves import MAX_POINTS_WITH_MARKERS, ChartOptions, LineStyle, draw_line
from dashboard.figures.float32 import as_float32
from dashboard.figures.panels import Panel, empty_figure, panel_layout
from dashboard.figures.style import GREY
from db.queries import Series

TOP = 8  # pixels of the margin: what the lines are stands above the figure, where it wraps


@dataclass(frozen=True, slots=True)
class Overlaid:
    """What is drawn of one run or segment."""

    style: LineStyle
    by_metric: Mapping[str, Series]
    step_axis: StepAxis


def overlay_figure(
    lines: Sequence[Overlaid], metrics: Sequence[str], *, baseline: int = 0, options: ChartOptions | None = None
) -> go.Figure:
    """One panel per metric with all lines over one axis; `baseline` is the place of what others are held to."""
    options = options or ChartOptions()
    layout = panel_layout(list(metrics), label_row=0, top=TOP)
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for panel in layout.panels:
        if panel.metric == HELD_OUT_DIFFERENCE:
            traces += _differences(panel, lines, baseline)
            shapes.append(_zero(panel))
        else:
            seen = replace(options, smooth=0) if panel.metric in HELD_OUT_METRICS else options
            traces += [
                trace
                for line in lines
                if panel.metric in line.by_metric
                for trace in draw_line(panel, line.by_metric[panel.metric], line.step_axis, line.style, seen)
            ]
    # Envelopes lie below all lines, those of the lines that come later too.
    traces.sort(key=lambda trace: trace["mode"] != "lines" or trace.get("hoverinfo") != "skip")
    quiet = {"shapes": shapes, "showlegend": False, "hoversubplots": "single"}
    figure = empty_figure(layout, options.x_axis, options.window, options.revision, **quiet)
    figure.add_traces(traces)
    return figure


def _differences(panel: Panel, lines: Sequence[Overlaid], baseline: int) -> list[dict[str, Any]]:
    measured = [HeldOutCurve.from_series(line.by_metric.get(HELD_OUT_LOSS, Series()), line.step_axis) for line in lines]
    return [
        trace
        for place, line in enumerate(lines)
        if place != baseline
        for trace in _difference(panel, line.style, held_out.difference(measured[place], measured[baseline]))
    ]


def _difference(panel: Panel, style: LineStyle, found: Difference) -> list[dict[str, Any]]:
    """A line through the places, and crosses on the upper edge where there is no number."""
    if not len(found.x):
        return []
    usual = {"type": "scatter", "name": style.name, "legendgroup": style.name}
    how = "" if found.exact else " (baseline interpolated)"
    broken = found.x[np.isnan(found.y)]
    line = {
        "x": found.x,
        "y": as_float32(found.y),
        "yaxis": panel.value_axis,
        "mode": "lines+markers" if len(found.x) <= MAX_POINTS_WITH_MARKERS else "lines",
        "line": {"color": style.color, "width": style.width, "dash": style.dash},
        "marker": {"size": 5},
        "hovertemplate": f"minus baseline{style.note} %{{y:+.4~g}}{how}<extra></extra>",
    }
    crosses = {
        "x": broken,
        "y": [style.cross_height] * len(broken),
        "yaxis": panel.mark_axis,
        "mode": "markers",
        "marker": {"symbol": "x-thin", "size": 9, "line": {"color": style.cross_color, "width": 2.5}},
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
        "yref": panel.value_axis,
        "layer": "below",
        "line": {"color": GREY, "width": 1.4},
    }
