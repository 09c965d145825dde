"""Several runs in one figure: a panel per metric, a colour per run, and the difference in held-out loss. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.axes import StepAxis
from dashboard.data import held_out
from dashboard.data.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS, HELD_OUT_METRICS, Difference, HeldOutCurve
from dashboard.figures.curves import MAX_POINTS_WITH_MARKERS, ChartOptions, draw_lines
from dashboard.figures.line_style import LineStyle
from dashboard.figures.non_finite import non_finite_crosses
from dashboard.figures.panels import Panel, panel_figure, panel_layout
from dashboard.figures.placed_line import PlacedLine
from dashboard.figures.style import GREY, NUMBER
from dashboard.figures.value_axes import value_axes
from db.queries import Series

TOP_MARGIN_PIXELS = 8  # the legend is above the figure, on the page


@dataclass(frozen=True, slots=True)
class OverlayLine:
    """The data of one run or segment, and its style."""

    style: LineStyle
    by_metric: Mapping[str, Series]
    step_axis: StepAxis


def overlay_figure(
    lines: Sequence[OverlayLine], metrics: Sequence[str], *, baseline: int = 0, options: ChartOptions | None = None
) -> go.Figure:
    """Draw one panel per metric, with all lines over one axis; `baseline` is the baseline's position in `lines`."""
    options = options or ChartOptions()
    placed = {name: _placed(name, lines) for name in metrics if name != HELD_OUT_DIFFERENCE}
    axes = value_axes(placed, placed, options.axes)
    layout = panel_layout(list(metrics), log=axes.log, ranges=axes.ranges, label_row=0, top=TOP_MARGIN_PIXELS)
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for panel in layout.panels:
        if panel.metric == HELD_OUT_DIFFERENCE:
            traces += _differences(panel, lines, baseline)
            shapes.append(_zero(panel))
        else:
            panel_options = replace(options, smooth=0) if panel.metric in HELD_OUT_METRICS else options
            traces += draw_lines(panel, placed[panel.metric], panel_options)
    # All envelopes are drawn below all lines.
    traces.sort(key=lambda trace: trace["mode"] != "lines" or trace.get("hoverinfo") != "skip")
    more = {"shapes": shapes, "showlegend": False, "hoversubplots": "overlaying"}
    return panel_figure(layout, traces, options.x_axis, options.window, options.revision, **more)


def _placed(metric: str, lines: Sequence[OverlayLine]) -> list[PlacedLine]:
    return [
        PlacedLine(line.by_metric[metric], line.step_axis, line.style) for line in lines if metric in line.by_metric
    ]


def _differences(panel: Panel, lines: Sequence[OverlayLine], baseline: int) -> list[dict[str, Any]]:
    measured = [HeldOutCurve.from_series(line.by_metric.get(HELD_OUT_LOSS, Series()), line.step_axis) for line in lines]
    return [
        trace
        for position, line in enumerate(lines)
        if position != baseline
        for trace in _difference(panel, line.style, held_out.difference(measured[position], measured[baseline]))
    ]


def _difference(panel: Panel, style: LineStyle, difference: Difference) -> list[dict[str, Any]]:
    """A line, and crosses at the upper edge where the difference is not finite."""
    if not len(difference.x):
        return []
    common = {"type": "scatter", "name": style.name, "legendgroup": style.name}
    method = "" if difference.exact else " (baseline interpolated)"
    line = {
        "x": difference.x,
        "y": difference.y,
        "yaxis": panel.value_axis,
        "mode": "lines+markers" if len(difference.x) <= MAX_POINTS_WITH_MARKERS else "lines",
        "line": {"color": style.color, "width": style.width, "dash": style.dash},
        "marker": {"size": 5},
        "hovertemplate": f"minus baseline{style.note} %{{y:+{NUMBER}}}{method}<extra></extra>",
    }
    crosses = non_finite_crosses(
        panel,
        difference.x[~np.isfinite(difference.y)],
        f"minus baseline{style.note} not finite",
        name=style.name,
        color=style.cross_color,
        height=style.cross_height,
    )
    return [common | line, *crosses]


def _zero(panel: Panel) -> dict[str, Any]:
    """A line at zero for the baseline."""
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
