"""The figure of several lines."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.axes import AxisChoices, XAxis
from dashboard.data import cached
from dashboard.data.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS
from dashboard.data.store import database_url
from dashboard.figures.component import PackedFigure
from dashboard.figures.curves import ChartOptions
from dashboard.views.cached_figure import cached_figure
from dashboard.views.compare.lines import ComparedLine
from dashboard.views.compare.overlay import OverlayLine, overlay_figure
from dashboard.views.compare.unreadable import reading

MAX_DETAILED_LINES, REDUCED_POINTS = 3, 400
"""More lines than this are drawn in fewer buckets, to be as fast. The envelopes still show every extreme value."""


def draw(
    lines: Sequence[ComparedLine],
    metrics: tuple[str, ...],
    *,
    x_axis: XAxis,
    view: tuple[int, int] | None,
    smooth: int,
    baseline: int,
    axes: AxisChoices,
) -> PackedFigure:
    """`view` is the range of the x axis in view, None for all of it; `baseline` is the position of a line.

    Raises UnreadableLine.
    """
    data = tuple((str(line.id), line.label, line.facts.stamp) for line in lines)
    key = ("compare", database_url(), data, metrics, x_axis, view, smooth, baseline, axes)
    chart = ChartOptions(x_axis=x_axis, window=view, smooth=smooth, revision="compare", axes=axes)
    return cached_figure(key, lambda: _figure(lines, metrics, view, chart, baseline))


def _figure(
    lines: Sequence[ComparedLine],
    metrics: tuple[str, ...],
    view: tuple[int, int] | None,
    chart: ChartOptions,
    baseline: int,
) -> go.Figure:
    stored = tuple(dict.fromkeys(HELD_OUT_LOSS if name == HELD_OUT_DIFFERENCE else name for name in metrics))
    points = cached.MAX_POINTS if len(lines) <= MAX_DETAILED_LINES else REDUCED_POINTS
    overlaid = [_read(line, stored, chart.x_axis, view, points) for line in lines]
    return overlay_figure(overlaid, metrics, baseline=baseline, options=chart)


def _read(
    line: ComparedLine, metrics: tuple[str, ...], x_axis: XAxis, view: tuple[int, int] | None, points: int
) -> OverlayLine:
    """Read what is in view of a line, in at most `points` buckets. Raises UnreadableLine."""
    segment, window = line.id.segment, None
    with reading(line):
        if view is not None:
            step_axis = cached.line_curves(line.facts, segment, (), x_axis=x_axis).step_axis
            window = (math.floor(step_axis.step_at(view[0])), math.ceil(step_axis.step_at(view[1])))
        curves = cached.line_curves(line.facts, segment, metrics, x_axis=x_axis, window=window, points=points)
    return OverlayLine(line.style, curves.by_metric, curves.step_axis)
