"""A run's figure. Pure: nothing here reads a store or draws on a page.

`run_figure` stacks one panel per metric over one x axis, so that a zoom moves all of them and an incident's band shows
which signal moved first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.facts import Curve
from dashboard.figures.axis import Floats, RunAxes, StepAxis, XAxis, compact
from dashboard.figures.float32 import as_float32
from dashboard.figures.log_scale import log_axes
from dashboard.figures.marks import Marks, draw_marks
from dashboard.figures.non_finite import HEIGHT, non_finite_crosses
from dashboard.figures.panels import Panel, panel_figure, panel_layout
from dashboard.figures.smoothing import smoothed
from dashboard.figures.style import BLUE, GREY, PURPLE, with_alpha
from db.queries import Series
from lossguard.metrics import short_name


@dataclass(frozen=True, slots=True)
class ChartOptions:
    """What a viewer chose to see of a run."""

    x_axis: XAxis = XAxis.STEP
    window: tuple[float, float] | None = None
    """The range in view, in units of the x axis; None for all of it."""
    smooth: int = 0
    """Steps over which lines are smoothed; 0 for not at all."""
    revision: str = ""
    """A viewer's zoom is kept as long as it stays the same."""


@dataclass(frozen=True, slots=True)
class LineStyle:
    """Of the line of a branch."""

    name: str
    color: str
    width: float
    note: str = ""
    """After the metric's name in the hover text."""
    dash: str = "solid"
    cross_color: str = PURPLE
    """Of the crosses for values that are not finite."""
    cross_height: float = HEIGHT
    """Of these crosses in their panel, 0..1."""


LIVE = LineStyle("live line", BLUE, 1.8)
DISCARDED = LineStyle("discarded branch", GREY, 1.2, " (discarded)")
PAUSE_RATIO = 20
"""Ratio of a gap in wall time to the usual one above which a line is broken: nothing was reported there."""
MAX_POINTS_WITH_MARKERS = 60
"""Up to so many points each has a marker: rare measurements are no line, and a single point would be invisible."""


def run_figure(
    curves: Mapping[str, Curve], marks: Marks, run_axes: RunAxes | None = None, options: ChartOptions | None = None
) -> go.Figure:
    """One panel per metric, the first one larger."""
    options, run_axes = options or ChartOptions(), run_axes or RunAxes()
    layout = panel_layout(list(curves), log=log_axes({name: _columns(curve) for name, curve in curves.items()}))
    marked = draw_marks(layout, marks, run_axes, options.window)
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        traces += _curve(panel, curves[panel.metric], run_axes, options)
    traces = without_repeated_legend_entries(traces + marked.traces)
    return panel_figure(layout, traces, options.x_axis, options.window, options.revision, shapes=marked.shapes)


def _columns(curve: Curve) -> list[Sequence[float | None]]:
    return [
        column for series in (curve.live, *curve.discarded.values()) for column in (series.min, series.mean, series.max)
    ]


def _curve(panel: Panel, curve: Curve, run_axes: RunAxes, options: ChartOptions) -> list[dict[str, Any]]:
    traces = []
    for segment, branch in curve.discarded.items():
        step_axis = run_axes.branches.get(segment, run_axes.live)
        traces += draw_line(panel, branch, step_axis, DISCARDED, options)
    return traces + draw_line(panel, curve.live, run_axes.live, LIVE, options)


def draw_line(
    panel: Panel, series: Series, step_axis: StepAxis, style: LineStyle, options: ChartOptions
) -> list[dict[str, Any]]:
    """A line with its envelope, and crosses for values that are not finite."""
    if not len(series):
        return []
    x = step_axis.at(series.first_step)
    pauses = _pauses(x) if options.x_axis is XAxis.TIME else []
    traces = _envelope(panel, series, x, style)
    if options.smooth:
        traces.append(_line(panel, series, x, style, _floats(series.mean), pauses) | _raw(style))
    mean = smoothed(series, options.smooth) if options.smooth else _floats(series.mean)
    traces.append(_line(panel, series, x, style, mean, pauses))
    return traces + _crosses(panel, series, x, style)


def _pauses(x: Floats) -> list[int]:
    """Indices of the positions that follow a pause."""
    gaps = np.diff(x)
    return [] if not len(gaps) else (np.flatnonzero(gaps > PAUSE_RATIO * np.median(gaps)) + 1).tolist()


def _line(
    panel: Panel, series: Series, x: Floats, style: LineStyle, y: Floats, pauses: Sequence[int]
) -> dict[str, Any]:
    """The mean of each bucket; a bucket without any finite value is a gap, and so is a pause."""
    bucketed = series.first_step != series.last_step
    label = formatting.escape_plotly(short_name(panel.metric)) + style.note
    range_text = " (%{customdata[0]:.4~g} .. %{customdata[1]:.4~g})" if bucketed else ""
    trace = {
        "type": "scatter",
        "x": compact(np.insert(x, pauses, x[pauses])),
        "y": np.insert(y, pauses, np.nan),
        "yaxis": panel.value_axis,
        "name": style.name,
        "legendgroup": style.name,
        "mode": "lines+markers" if len(series) <= MAX_POINTS_WITH_MARKERS else "lines",
        "line": {"color": style.color, "width": style.width, "dash": style.dash},
        "marker": {"size": 5},
        "hovertemplate": f"{label} %{{y:.4~g}}{range_text}<extra></extra>",
    }
    if bucketed:
        ranges = np.stack([_floats(series.min), _floats(series.max)], axis=1)
        trace["customdata"] = as_float32(np.insert(ranges, pauses, np.nan, axis=0))
    return trace


def _raw(style: LineStyle) -> dict[str, Any]:
    """What differs for the raw line below a smoothed one."""
    return {
        "line": {"color": with_alpha(style.color, 0.55), "width": 1, "dash": style.dash},
        "mode": "lines",
        "name": f"{style.name}, raw",
        "showlegend": False,
        "hoverinfo": "skip",
        "hovertemplate": None,
    }


def _envelope(panel: Panel, series: Series, x: Floats, style: LineStyle) -> list[dict[str, Any]]:
    """Smallest and largest value of each bucket, outlined: a spike of one step in a million stays visible."""
    if series.first_step == series.last_step:
        return []
    low, high = _floats(series.min), _floats(series.max)
    finite = ~np.isnan(low)
    return [
        {
            "type": "scatter",
            "x": compact(x[finite]),
            "y": column[finite],
            "yaxis": panel.value_axis,
            "name": "smallest .. largest",
            "legendgroup": style.name,
            "showlegend": False,
            "mode": "lines",
            "line": {"color": with_alpha(style.color, 0.55), "width": 0.8},
            "fill": fill,
            "fillcolor": with_alpha(style.color, 0.22),
            "hoverinfo": "skip",
        }
        for column, fill in ((low, None), (high, "tonexty"))
    ]


def _crosses(panel: Panel, series: Series, x: Floats, style: LineStyle) -> list[dict[str, Any]]:
    """One for each bucket with NaN or infinite values."""
    hit = np.flatnonzero(series.non_finite)
    label, name = formatting.escape_plotly(short_name(panel.metric)), formatting.escape_plotly(style.name)
    return non_finite_crosses(
        panel,
        compact(x[hit]),
        f"{label} not finite: %{{customdata}} ({name})",
        values=[formatting.plural(series.non_finite[index], "value") for index in hit],
        color=style.cross_color,
        height=style.cross_height,
    )


def without_repeated_legend_entries(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each name once in the legend, however many traces have it."""
    seen: set[str] = set()
    for trace in traces:
        trace["showlegend"] = trace.get("showlegend", True) and trace["name"] not in seen
        if trace["showlegend"]:
            seen.add(trace["name"])
    return traces


def _floats(values: Sequence[float | None]) -> Floats:
    """None becomes NaN, which plotly draws as a gap."""
    return np.array(values, dtype=np.float64)
