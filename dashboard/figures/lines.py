"""Lines of a panel: buckets and positions, style, the axis made for them, and marks for what it cannot show. Pure.

A value that is not finite is a cross on the upper edge. Each stretch of values beyond the axis is a triangle on the
edge.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dashboard import formatting
from dashboard.axes import AxisChoices, Floats, StepAxis, compact
from dashboard.figures.panels import Panel
from dashboard.figures.style import BLUE, GREY, PURPLE, scatter
from dashboard.figures.value_axis import AUTO_LOG, Range, always_log, axis_range, log_axes
from db.queries import Series
from lossguard.vocabulary.metrics import short_name

NOT_FINITE = "not finite"
"""Name in the legend."""
CROSS_HEIGHT = 0.95
"""Height of the crosses in their panel, 0..1."""


@dataclass(frozen=True, slots=True)
class LineStyle:
    """Style of the line of a branch."""

    name: str
    color: str
    width: float
    note: str = ""
    """Text after the metric's name in the hover text."""
    dash: str = "solid"
    cross_color: str = PURPLE
    """Colour of the crosses for values that are not finite."""
    cross_height: float = CROSS_HEIGHT
    """Height of these crosses in their panel, 0..1."""


LIVE = LineStyle("live line", BLUE, 1.8)
DISCARDED = LineStyle("discarded branch", GREY, 1.2, " (discarded)")


def non_finite_crosses(
    panel: Panel,
    x: Any,
    hover: str,
    *,
    values: Sequence[str] | None = None,
    name: str = NOT_FINITE,
    color: str = PURPLE,
    height: float = CROSS_HEIGHT,
) -> list[dict[str, Any]]:
    """Return one trace with a cross at each position of `x`; none without positions.

    `hover` is a template of plotly's in which `%{customdata}` stands for the text of `values` at the position.
    """
    if not len(x):
        return []
    marker = {"symbol": "x-thin", "size": 9, "line": {"color": color, "width": 2.5}}
    trace = scatter(panel.mark_axis, x, [height] * len(x), name, mode="markers", hover=hover, marker=marker)
    return [trace if values is None else trace | {"customdata": values}]


@dataclass(slots=True)
class PlacedLine:
    """Columns of equal length, NaN where a bucket has no finite value: plotly draws it as a gap."""

    series: Series
    step_axis: StepAxis
    style: LineStyle
    x: Floats = field(init=False)
    low: Floats = field(init=False)
    high: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.step_axis.at(self.series.first_step)
        self.low, self.high = floats(self.series.min), floats(self.series.max)

    @property
    def largest(self) -> float:
        """Size of the largest value; 0 without any."""
        sizes = np.fmax(np.abs(self.low), np.abs(self.high))
        return float(np.fmax.reduce(sizes, initial=0.0))


def floats(values: Sequence[float | None]) -> Floats:
    """Convert to floats; None becomes NaN."""
    return np.array(values, dtype=np.float64)


def extent(lines: Sequence[PlacedLine]) -> tuple[Floats, Floats]:
    """The smallest and the largest value of each bucket of all lines."""
    if len(lines) == 1:
        return lines[0].low, lines[0].high
    return (
        np.concatenate([np.empty(0), *(line.low for line in lines)]),
        np.concatenate([np.empty(0), *(line.high for line in lines)]),
    )


NEVER_CLIPPED = frozenset({"lr"})
"""Metrics that the loop chooses itself: no value of them is an accident."""


def value_axes(
    live: Mapping[str, Sequence[PlacedLine]], lines: Mapping[str, Sequence[PlacedLine]], choices: AxisChoices
) -> tuple[set[str], dict[str, Range]]:
    """Return the metrics with a log axis, and ranges by metric; a metric without a range shows all values.

    `live` are the lines that an axis is made for, `lines` all that are drawn.
    """
    log: set[str] = set()
    ranges: dict[str, Range] = {}
    for metric in lines:
        fit_all = metric in choices.fit_all or metric in NEVER_CLIPPED
        low, high = extent(live[metric])
        if fit_all or not np.isfinite(high).any():
            low, high = extent(lines[metric])
        is_log = metric in choices.log or (metric not in choices.linear and _is_log(metric, low, high))
        if is_log:
            log.add(metric)
        found = axis_range(low, high, log=is_log, fit_all=fit_all)
        if found is not None:
            ranges[metric] = found
    return log, ranges


def _is_log(metric: str, low: Floats, high: Floats) -> bool:
    """Decide by the metric registry; a few extreme values do not decide it."""
    if metric not in AUTO_LOG:
        return metric in always_log({metric: [high]})
    bounds = axis_range(low, high, log=False)
    largest = np.inf if bounds is None else bounds[1]
    return metric in log_axes({metric: [column[~(column > largest)] for column in (low, high)]})


BEYOND_THE_AXIS = "beyond the axis"
NEAR = 0.01
"""Fraction of the width in view: nearer stretches have one triangle, at their most extreme value."""
LABEL_ROOM, MAX_LABELS = 0.1, 4
"""The most extreme triangles have their values beside them, if they are not nearer to each other than this share."""


@dataclass(frozen=True, slots=True)
class EdgeMark:
    """One triangle."""

    x: float
    value: float
    above: bool
    style: LineStyle
    first_step: int
    last_step: int


def edge_markers(panel: Panel, lines: Sequence[PlacedLine], view: tuple[float, float]) -> list[dict[str, Any]]:
    """Return one trace for each style that has values outside the axis; `view` is the range of the x axis in view."""
    if panel.range is None:
        return []
    near = NEAR * (view[1] - view[0])
    marks = [mark for line in lines for mark in _edge_marks(panel, line, near)]
    texts = _edge_labels(marks, view)
    styles = list(dict.fromkeys(mark.style for mark in marks))
    return [_edge_trace(panel, style, [each for each in zip(marks, texts, strict=True) if each[0].style == style], view)
            for style in styles]  # fmt: skip


def _edge_marks(panel: Panel, line: PlacedLine, near: float) -> Iterator[EdgeMark]:
    lowest, highest = panel.bounds
    for values, above in ((line.high, True), (line.low, False)):
        outside = np.flatnonzero(values > highest if above else values < lowest)
        if not len(outside):
            continue
        starts = [0, *(np.flatnonzero(np.diff(line.x[outside]) > near) + 1).tolist()]
        for first, end in zip(starts, [*starts[1:], len(outside)], strict=True):
            stretch = outside[first:end]
            at = stretch[np.argmax(values[stretch]) if above else np.argmin(values[stretch])]
            steps = line.series.first_step[stretch[0]], line.series.last_step[stretch[-1]]
            yield EdgeMark(float(line.x[at]), float(values[at]), above, line.style, *steps)


def _edge_labels(marks: Sequence[EdgeMark], view: tuple[float, float]) -> list[str]:
    """The values of the most extreme ones; empty for the others."""
    room = LABEL_ROOM * (view[1] - view[0])
    texts = [""] * len(marks)
    ranked = sorted(range(len(marks)), key=lambda place: abs(marks[place].value), reverse=True)
    for place in ranked[:MAX_LABELS]:
        mark = marks[place]
        labelled = [each for each, text in zip(marks, texts, strict=True) if text and each.above == mark.above]
        if all(abs(each.x - mark.x) >= room for each in labelled):
            texts[place] = formatting.number(mark.value)
    return texts


def _edge_trace(
    panel: Panel, style: LineStyle, marks: Sequence[tuple[EdgeMark, str]], view: tuple[float, float]
) -> dict[str, Any]:
    """Above the right part of the axis, a value stands to the left of its triangle."""
    right = view[1] - LABEL_ROOM * (view[1] - view[0])
    own = [mark for mark, _ in marks]
    sides = [f"{'bottom' if mark.above else 'top'} {'left' if mark.x > right else 'right'}" for mark in own]
    symbol = _shared(["triangle-up" if mark.above else "triangle-down" for mark in own])
    return scatter(
        panel.mark_axis,
        compact([mark.x for mark in own]),
        [float(mark.above) for mark in own],
        BEYOND_THE_AXIS,
        mode="markers+text",
        hover="%{customdata}",
        legendgroup=style.name,
        showlegend=False,
        text=[text for _, text in marks],
        textposition=_shared(sides),
        textfont={"size": 11},
        marker={"symbol": symbol, "size": 9, "color": style.color},
        cliponaxis=False,
        customdata=[_edge_hover(panel, mark) for mark in own],
    )


def _shared(values: list[str]) -> str | list[str]:
    """Return one value for all if they are equal: plotly validates each of a list."""
    return values[0] if len(set(values)) == 1 else values


def _edge_hover(panel: Panel, mark: EdgeMark) -> str:
    label = formatting.escape_plotly(short_name(panel.metric)) + mark.style.note
    side = "above" if mark.above else "below"
    where = f"step {mark.first_step:,}"
    if mark.last_step != mark.first_step:
        where = f"steps {mark.first_step:,} to {mark.last_step:,}"
    return f"{label} {formatting.number(mark.value)}: {side} the axis, {where}"
