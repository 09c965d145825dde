"""A run's figure. Pure: nothing here reads a store or draws on a page.

`run_figure` stacks one panel per metric over one x axis, so that a zoom moves all of them and an incident's band shows
which signal moved first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import AxisChoices, Floats, RunAxes, XAxis, compact
from dashboard.data.facts import Curve
from dashboard.figures.lines import (
    DISCARDED,
    LIVE,
    LineStyle,
    PlacedLine,
    edge_markers,
    floats,
    non_finite_crosses,
    value_axes,
)
from dashboard.figures.marks import Marks, draw_marks
from dashboard.figures.panels import LABEL_ROW, Panel, panel_figure, panel_layout
from dashboard.figures.style import GREY, NUMBER, PANEL_COLOURS, number_format, scatter, with_alpha
from dashboard.figures.value_axis import as_float32
from db.queries import Series
from lossguard.vocabulary.metrics import short_name
from monitor.detection.expected_bands import Band


@dataclass(frozen=True, slots=True)
class ChartOptions:
    x_axis: XAxis = XAxis.STEP
    window: tuple[float, float] | None = None
    """The range in view, in units of the x axis; None for all of it."""
    smooth: int = 0
    """Steps over which lines are smoothed; 0 for not at all."""
    revision: str = ""
    """A viewer's zoom is kept as long as it stays the same."""
    axes: AxisChoices = field(default_factory=AxisChoices)
    band: tuple[Floats, Band] | None = None
    """Steps of the live line, and the expected band of the loss there."""


PAUSE_RATIO = 20
"""Ratio of a gap in wall time to the usual one above which a line is broken: nothing was reported there."""
MAX_POINTS_WITH_MARKERS = 60
"""Maximum points of which each has a marker: rare measurements are no line, and a single point would be invisible."""


def run_figure(
    curves: Mapping[str, Curve], marks: Marks, run_axes: RunAxes | None = None, options: ChartOptions | None = None
) -> go.Figure:
    """Draw one panel per metric, the first one larger."""
    options, run_axes = options or ChartOptions(), run_axes or RunAxes()
    live, lines = {}, {}
    for (name, curve), color in zip(curves.items(), cycle(PANEL_COLOURS), strict=False):
        live[name] = [PlacedLine(curve.live, run_axes.live, replace(LIVE, color=color))]
        branches = [
            PlacedLine(series, run_axes.branches.get(segment, run_axes.live), DISCARDED)
            for segment, series in curve.discarded.items()
        ]
        lines[name] = [*branches, *live[name]]  # the live line above the others
    log, ranges = value_axes(live, lines, options.axes)
    label_row = LABEL_ROW if marks.incidents else 0
    layout = panel_layout(list(curves), log=log, ranges=ranges, label_row=label_row)
    marked = draw_marks(layout, marks, run_axes, options.window)
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        if panel.metric == "loss" and options.band is not None:
            traces += expected_band(panel, run_axes.live.at(options.band[0].tolist()), options.band[1])
        traces += draw_lines(panel, lines[panel.metric], options)
    traces = without_repeated_legend_entries(traces + marked.traces)
    return panel_figure(layout, traces, options.x_axis, options.window, options.revision, shapes=marked.shapes)


def draw_lines(panel: Panel, lines: Sequence[PlacedLine], options: ChartOptions) -> list[dict[str, Any]]:
    """Draw each line, and the values of all lines that lie outside the axis of the panel."""
    traces = [trace for line in lines for trace in draw_line(panel, line, options)]
    ends = [line.x[[0, -1]] for line in lines if len(line.x)]
    view = options.window or ((min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (0.0, 1.0))
    return traces + edge_markers(panel, lines, view)


def draw_line(panel: Panel, line: PlacedLine, options: ChartOptions) -> list[dict[str, Any]]:
    """A line with its envelope, and crosses for values that are not finite."""
    if not len(line.x):
        return []
    pauses: list[int] = []  # indices of the positions that follow one
    if options.x_axis is XAxis.TIME and len(line.x) > 1:
        gaps = np.diff(line.x)
        pauses = (np.flatnonzero(gaps > PAUSE_RATIO * np.median(gaps)) + 1).tolist()
    traces, mean = _envelope(panel, line), floats(line.series.mean)
    if options.smooth:
        traces.append(_line(panel, line, mean, pauses) | _raw(line.style))
        mean = smoothed(line.series, options.smooth)
    return [*traces, _line(panel, line, mean, pauses), *_crosses(panel, line)]


def _line(panel: Panel, line: PlacedLine, y: Floats, pauses: Sequence[int]) -> dict[str, Any]:
    """The mean of each bucket; a bucket without any finite value is a gap, and so is a pause."""
    series, x, style = line.series, line.x, line.style
    bucketed = series.first_step != series.last_step
    label = formatting.escape_plotly(short_name(panel.metric)) + style.note
    number = number_format(panel.metric, line.largest)
    range_text = f" (%{{customdata[0]:{number}}} .. %{{customdata[1]:{number}}})" if bucketed else ""
    trace = scatter(
        panel.value_axis,
        compact(np.insert(x, pauses, x[pauses])),
        np.insert(y, pauses, np.nan),
        style.name,
        mode="lines+markers" if len(series) <= MAX_POINTS_WITH_MARKERS else "lines",
        hover=f"{label} %{{y:{number}}}{range_text}",
        legendrank=(1 if style.name == LIVE.name else 500) + panel.position,  # also the order of hover texts
        line={"color": style.color, "width": style.width, "dash": style.dash},
        marker={"size": 5},
    )
    if bucketed:
        ranges = np.stack([line.low, line.high], axis=1)
        trace["customdata"] = as_float32(np.insert(ranges, pauses, np.nan, axis=0))
    return trace


def _raw(style: LineStyle) -> dict[str, Any]:
    """Return the properties of the raw line below a smoothed one."""
    return {
        "line": {"color": with_alpha(style.color, 0.55), "width": 1, "dash": style.dash},
        "mode": "lines",
        "name": f"{style.name}, raw",
        "showlegend": False,
        "hoverinfo": "skip",
        "hovertemplate": None,
    }


def _envelope(panel: Panel, line: PlacedLine) -> list[dict[str, Any]]:
    """Smallest and largest value of each bucket, outlined: a spike of one step in a million stays visible."""
    if line.series.first_step == line.series.last_step:
        return []
    style, finite = line.style, ~np.isnan(line.low)
    x = compact(line.x[finite])
    return [
        scatter(
            panel.value_axis,
            x,
            column[finite],
            "smallest .. largest",
            legendgroup=style.name,
            showlegend=False,
            line={"color": with_alpha(style.color, 0.55), "width": 0.8},
            fill=fill,
            fillcolor=with_alpha(style.color, 0.22),
            hoverinfo="skip",
        )
        for column, fill in ((line.low, None), (line.high, "tonexty"))
    ]


def _crosses(panel: Panel, line: PlacedLine) -> list[dict[str, Any]]:
    """Draw a cross for each bucket with NaN or infinite values."""
    series, style = line.series, line.style
    hit = np.flatnonzero(series.non_finite)
    label, name = formatting.escape_plotly(short_name(panel.metric)), formatting.escape_plotly(style.name)
    return non_finite_crosses(
        panel,
        compact(line.x[hit]),
        f"{label} not finite: %{{customdata}} ({name})",
        values=[formatting.plural(series.non_finite[index], "value") for index in hit],
        color=style.cross_color,
        height=style.cross_height,
    )


def without_repeated_legend_entries(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep each name once in the legend, however many traces have it."""
    seen: set[str] = set()
    for trace in traces:
        trace["showlegend"] = trace.get("showlegend", True) and trace["name"] not in seen
        if trace["showlegend"]:
            seen.add(trace["name"])
    return traces


def smoothed(series: Series, span: int) -> Floats:
    """The average of the buckets' means with weights that fall to 1/e in `span` steps; NaN where a bucket has none.

    The average is divided by the weight it has so far (the bias correction of Adam), so that a line does not start at
    zero. A gap does not reset it.
    """
    average, weight, previous_step = 0.0, 0.0, None
    line = np.full(len(series), np.nan)
    for index, (step, mean) in enumerate(zip(series.last_step, series.mean, strict=True)):
        if mean is None or not math.isfinite(mean):
            continue
        decay = math.exp(-(step - previous_step) / span) if previous_step is not None else 0.0
        gain = max(1 - decay, 1e-9) if previous_step is not None else 1 - math.exp(-1 / span)
        average, weight, previous_step = decay * average + gain * mean, decay * weight + gain, step
        line[index] = average / weight
    return line


MAX_BAND_POINTS = 400
"""Points of each line; a longer band is thinned."""


def expected_band(panel: Panel, x: Floats, band: Band) -> list[dict[str, Any]]:
    """Return the expected band at these positions; a gap during the warm-up."""
    warm = np.flatnonzero(np.isfinite(band.low) & np.isfinite(band.high))
    drawn = warm[:: -max(1, -(-len(warm) // MAX_BAND_POINTS))][::-1]  # with the newest one
    if not len(drawn):
        return []
    axis, x, low, high = panel.value_axis, compact(x[drawn]), band.low[drawn], band.high[drawn]
    edge: dict[str, Any] = {"line": {"color": with_alpha(GREY, 0.5), "width": 0.5}, "hoverinfo": "skip"}
    limits = f"%{{customdata[0]:{NUMBER}}} .. %{{customdata[1]:{NUMBER}}}"
    return [
        scatter(axis, x, low, "expected band", showlegend=False, **edge),
        scatter(axis, x, high, "expected band", fill="tonexty", fillcolor=with_alpha(GREY, 0.25), **edge),
        scatter(
            axis,
            x,
            band.expected[drawn],
            "expected",
            hover=f"expected %{{y:{NUMBER}}} (band {limits})",
            line={"color": GREY, "width": 1.2, "dash": "dash"},
            customdata=np.stack([low, high], axis=1),
        ),
    ]
