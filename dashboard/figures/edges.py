"""Values beyond the axis of their panel: each stretch of them is a triangle on the edge of the panel. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard import formatting
from dashboard.axes import compact
from dashboard.figures.line_style import LineStyle
from dashboard.figures.panels import Panel
from dashboard.figures.placed_line import PlacedLine
from lossguard.vocabulary.metrics import short_name

NAME = "beyond the axis"
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
    marks = [mark for line in lines for mark in _marks(panel, line, near)]
    texts = _labels(marks, view)
    styles = list(dict.fromkeys(mark.style for mark in marks))
    return [_trace(panel, style, [each for each in zip(marks, texts, strict=True) if each[0].style == style], view)
            for style in styles]  # fmt: skip


def _marks(panel: Panel, line: PlacedLine, near: float) -> Iterator[EdgeMark]:
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


def _labels(marks: Sequence[EdgeMark], view: tuple[float, float]) -> list[str]:
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


def _trace(
    panel: Panel, style: LineStyle, marks: Sequence[tuple[EdgeMark, str]], view: tuple[float, float]
) -> dict[str, Any]:
    """Above the right part of the axis, a value stands to the left of its triangle."""
    right = view[1] - LABEL_ROOM * (view[1] - view[0])
    own = [mark for mark, _ in marks]
    sides = [f"{'bottom' if mark.above else 'top'} {'left' if mark.x > right else 'right'}" for mark in own]
    return {
        "type": "scatter",
        "x": compact([mark.x for mark in own]),
        "y": [float(mark.above) for mark in own],
        "yaxis": panel.mark_axis,
        "name": NAME,
        "legendgroup": style.name,
        "showlegend": False,
        "mode": "markers+text",
        "text": [text for _, text in marks],
        "textposition": _shared(sides),
        "textfont": {"size": 11},
        "marker": {
            "symbol": _shared(["triangle-up" if mark.above else "triangle-down" for mark in own]),
            "size": 9,
            "color": style.color,
        },
        "cliponaxis": False,
        "customdata": [_hover(panel, mark) for mark in own],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _shared(values: list[str]) -> str | list[str]:
    """Return one value for all if they are equal: plotly validates each of a list."""
    return values[0] if len(set(values)) == 1 else values


def _hover(panel: Panel, mark: EdgeMark) -> str:
    label = formatting.escape_plotly(short_name(panel.metric)) + mark.style.note
    side = "above" if mark.above else "below"
    where = f"step {mark.first_step:,}"
    if mark.last_step != mark.first_step:
        where = f"steps {mark.first_step:,} to {mark.last_step:,}"
    return f"{label} {formatting.number(mark.value)}: {side} the axis, {where}"
