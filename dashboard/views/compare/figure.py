"""Several runs in one figure: a panel per metric, a colour per run, and the difference in held-out loss.

A line whose steps cannot be read is named once, and the others are drawn.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import StepAxis
from dashboard.data import cached
from dashboard.data.comparison import held_out
from dashboard.data.comparison.held_out import (
    HELD_OUT_DIFFERENCE,
    HELD_OUT_LOSS,
    HELD_OUT_METRICS,
    Difference,
    HeldOutCurve,
)
from dashboard.data.store import StepsUnreadable, database_url
from dashboard.figures.component import PackedFigure, cached_figure
from dashboard.figures.curves import MAX_POINTS_WITH_MARKERS, ChartOptions, draw_lines
from dashboard.figures.lines import LineStyle, PlacedLine, non_finite_crosses, value_axes
from dashboard.figures.panels import Panel, panel_figure, panel_layout
from dashboard.figures.style import GREY, NUMBER, scatter
from dashboard.views import frame
from dashboard.views.compare.controls import ComparedLine
from db.queries import Series


class UnreadableLine(Exception):
    """Steps of a compared line cannot be read."""

    def __init__(self, line: ComparedLine, reason: StepsUnreadable) -> None:
        super().__init__(str(reason))
        self.line, self.reason = line, reason


@contextmanager
def reading(line: ComparedLine) -> Iterator[None]:
    """Raises UnreadableLine where the steps of the line, which are read within, cannot be read."""
    try:
        yield
    except StepsUnreadable as error:
        raise UnreadableLine(line, error) from error


class Warnings:
    def __init__(self) -> None:
        self._named: set[str] = set()

    def show(self, error: UnreadableLine) -> None:
        """Name the line and the reason, unless the page has named it already."""
        label = error.line.label
        if label not in self._named:
            frame.warn_unavailable(error.reason, what=f"{formatting.escape_markdown(label)} is not shown. ")
        self._named.add(label)


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
    log, ranges = value_axes(placed, placed, options.axes)
    layout = panel_layout(list(metrics), log=log, ranges=ranges, label_row=0, top=TOP_MARGIN_PIXELS)
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
    method = "" if difference.exact else " (baseline interpolated)"
    line = scatter(
        panel.value_axis,
        difference.x,
        difference.y,
        style.name,
        mode="lines+markers" if len(difference.x) <= MAX_POINTS_WITH_MARKERS else "lines",
        hover=f"minus baseline{style.note} %{{y:+{NUMBER}}}{method}",
        line={"color": style.color, "width": style.width, "dash": style.dash},
        marker={"size": 5},
    )
    crosses = non_finite_crosses(
        panel,
        difference.x[~np.isfinite(difference.y)],
        f"minus baseline{style.note} not finite",
        name=style.name,
        color=style.cross_color,
        height=style.cross_height,
    )
    return [line, *crosses]


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


MAX_DETAILED_LINES, REDUCED_POINTS = 3, 400
"""More lines than this are drawn in fewer buckets, to be as fast. The envelopes still show every extreme value."""


def draw(lines: Sequence[ComparedLine], metrics: tuple[str, ...], baseline: int, options: ChartOptions) -> PackedFigure:
    """`baseline` is the position of a line. Raises UnreadableLine."""
    data = tuple((str(line.id), line.style, line.facts.stamp) for line in lines)
    key = ("compare", database_url(), data, metrics, baseline, options)
    return cached_figure(key, lambda: _figure(lines, metrics, baseline, options))


def _figure(lines: Sequence[ComparedLine], metrics: tuple[str, ...], baseline: int, options: ChartOptions) -> go.Figure:
    stored = tuple(dict.fromkeys(HELD_OUT_LOSS if name == HELD_OUT_DIFFERENCE else name for name in metrics))
    points = cached.MAX_POINTS if len(lines) <= MAX_DETAILED_LINES else REDUCED_POINTS
    overlaid = [_read_line(line, stored, options, points) for line in lines]
    return overlay_figure(overlaid, metrics, baseline=baseline, options=options)


def _read_line(line: ComparedLine, metrics: tuple[str, ...], options: ChartOptions, points: int) -> OverlayLine:
    """Read what is in view of a line, in at most `points` buckets. Raises UnreadableLine."""
    segment, x_axis, view, window = line.id.segment, options.x_axis, options.window, None
    with reading(line):
        if view is not None:
            step_axis = cached.line_curves(line.facts, segment, (), x_axis=x_axis).step_axis
            window = (math.floor(step_axis.step_at(view[0])), math.ceil(step_axis.step_at(view[1])))
        curves = cached.line_curves(line.facts, segment, metrics, x_axis=x_axis, window=window, points=points)
    return OverlayLine(line.style, curves.by_metric, curves.step_axis)
