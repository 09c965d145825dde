"""Renders a plotly figure as SVG, without a script. Pure.

It supports what the figures of this dashboard consist of (scatter traces, panels, vertical bands and lines, titles) and
nothing else. Text and grid take the colours of the page around them (`currentColor` and the class `grid`).
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.axes import Floats
from dashboard.figures.style import BLUE
from dashboard.report import svg_paths
from dashboard.report.legend import legend
from dashboard.report.plain_figure import PlainFigure
from dashboard.report.scales import EPSILON, EXACT, PADDING, Scale, scale_for, tick_text

PICTURE_WIDTH = 760
"""In user units: about the width of an A4 sheet without its margins, in pixels."""
PICTURE_SCALE = 0.64
"""Height of a report's picture relative to the page's figure: the first curves fit on the first sheet."""
LETTER_WIDTH = 6.5
"""Approximate."""
TOP_MARGIN = 4
"""The legend is outside the picture."""
TEXT_ROWS = {"middle": 4, "bottom": 13, "top": -5}
"""From a marker down to the baseline of its text."""
MAX_X_TICKS, DEFAULT_Y_TICKS = 8, 6
TAGS = {"<b>": '<tspan font-weight="600">', "<sup>": '<tspan dy="-.4em" font-size=".75em">', "</b>": "</tspan>"}
TAGS["</sup>"] = "</tspan>"


@dataclass(frozen=True, slots=True)
class Box:
    """The plot area, in units of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def y_at(self, share: float) -> float:
        """The y coordinate of a share 0..1 of the height, counted from below."""
        return self.bottom - share * (self.bottom - self.top)


def render_svg(drawn: go.Figure, *, name: str, label: str, height: int | None = None) -> str:
    """A legend and an SVG. `name` makes ids unique, `label` is for screen readers, `height` replaces the figure's."""
    figure = PlainFigure(drawn)
    layout = figure.layout
    entries = [trace for trace in figure.data if trace.showlegend is not False and layout.showlegend is not False]
    margin = layout.margin
    total_height = (height or int(layout.height)) - margin.t + TOP_MARGIN
    box = Box(margin.l, TOP_MARGIN, PICTURE_WIDTH - margin.r, total_height - margin.b)
    axes = _axes(figure, box)
    parts = [
        legend(entries),
        f'<svg viewBox="0 0 {PICTURE_WIDTH} {total_height}" role="img" aria-label="{html.escape(label)}" '
        f'class="chart{" with-names" if any(scale.names for scale in axes.values()) else ""}">',
        *_clips(axes, box, name),
        *_shapes(layout.shapes, axes, box, below=True),
        *_grid(figure, axes, box),
        *_shapes(layout.shapes, axes, box, below=False),
        *_lines(figure.data, axes, name),
        *_markers(figure.data, axes),
        *_titles(layout.annotations, box),
        "</svg>",
    ]
    return "".join(parts)


def _clips(axes: dict[str, Scale], box: Box, name: str) -> Iterator[str]:
    """For each y axis the part of the picture that its lines do not leave."""
    for key, scale in axes.items():
        if key != "x":
            yield (
                f'<clipPath id="{name}-{key}"><rect x="{box.left}" y="{scale.end - 1:.1f}" '
                f'width="{box.right - box.left:.1f}" height="{scale.start - scale.end + 2:.1f}"/></clipPath>'
            )


def _axes(figure: PlainFigure, box: Box) -> dict[str, Scale]:
    """ "x" and "y", "y2", ..: the scales that the traces name."""
    layout = figure.layout
    found = {"x": _x_axis(figure, box)}
    for trace in figure.data:
        key = trace.yaxis or "y"
        if key not in found:
            axis = layout[f"yaxis{key[1:]}"]
            low, high = axis.domain or (0, 1)
            values = [each.y for each in figure.data if (each.yaxis or "y") == key]
            found[key] = _axis(axis, values, box.y_at(low), box.y_at(high), PADDING)
    return found


def _x_axis(figure: PlainFigure, box: Box) -> Scale:
    columns = [trace.x for trace in figure.data]
    return _axis(figure.layout.xaxis, columns, box.left, box.right, _x_padding(figure), EXACT)


def _x_padding(figure: PlainFigure) -> float:
    """Padding of the x axis: lines reach the edges, markers with text keep a distance."""
    return 0.01 if any("lines" in trace.mode for trace in figure.data) else 0.1


def _axis(
    axis: Any, columns: Sequence[Any], start: float, end: float, padding: float, resolution: float = EPSILON
) -> Scale:
    categories = [value for column in columns for value in column if isinstance(value, str)]
    if categories:
        names = tuple(dict.fromkeys(categories))
        return Scale(-0.5, len(names) - 0.5, start, end, names=names)
    log = axis.type == "log"
    return scale_for(columns, axis.range, start, end, log=log, padding=padding, resolution=resolution)


def _grid(figure: PlainFigure, axes: dict[str, Scale], box: Box) -> Iterator[str]:
    """Grid lines, tick labels, and the title of the x axis."""
    layout = figure.layout
    lines, labels = _x_grid(layout.xaxis, axes["x"], box)
    for key, scale in axes.items():
        axis = layout[f"yaxis{key[1:]}"] if key != "x" else None
        if axis is not None and axis.visible is not False and axis.showticklabels is not False:
            more_lines, more_labels = _y_grid(axis, scale, box)
            lines, labels = lines + more_lines, labels + more_labels
    middle, title = (box.left + box.right) / 2, _text(layout.xaxis.title.text or "")
    yield f'<path class="grid" d="{"".join(lines)}"/><g class="ticks">{"".join(labels)}</g>'
    yield f'<text x="{middle:.1f}" y="{box.bottom + 34:.1f}" text-anchor="middle">{title}</text>'


def _x_grid(axis: Any, scale: Scale, box: Box) -> tuple[list[str], list[str]]:
    lines, labels = [], []
    widest = max((len(tick_text(value, axis.tickformat)) for value in scale.ticks(MAX_X_TICKS)), default=1)
    room = int((box.right - box.left) / (LETTER_WIDTH * (widest + 2)))
    for value in scale.ticks(min(MAX_X_TICKS, room)):
        x = float(scale.at([value])[0])
        lines.append(f"M{x:.1f},{box.top:.1f}V{box.bottom:.1f}")
        text = _power(value) if scale.log else html.escape(tick_text(value, axis.tickformat))
        labels.append(f'<text x="{x:.1f}" y="{box.bottom + 16:.1f}" text-anchor="middle">{text}</text>')
    return lines, labels


def _y_grid(axis: Any, scale: Scale, box: Box) -> tuple[list[str], list[str]]:
    lines, labels = [], []
    for value in axis.tickvals or scale.ticks(axis.nticks or DEFAULT_Y_TICKS):
        name = scale.names[int(value)] if scale.names else None
        y = float(scale.at([value if name is None else name])[0])
        text = tick_text(value, axis.tickformat) if name is None else html.escape(name)
        lines.append(f"M{box.left},{y:.1f}H{box.right}")
        labels.append(f'<text x="{box.left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return lines, labels


def _power(value: float) -> str:
    return _text(f"10<sup>{round(np.log10(value))}</sup>")


def _shapes(shapes: Sequence[Any], axes: dict[str, Scale], box: Box, *, below: bool) -> Iterator[str]:
    """The visible part of vertical bands and lines."""
    for shape in shapes:
        if (shape.layer == "below") != below:
            continue
        first, last = axes["x"].at([shape.x0, shape.x1]).tolist()
        if last < box.left or first > box.right:
            continue
        first, last = max(first, box.left), min(last, box.right)
        style = svg_paths.stroke_attributes(shape.line.color, shape.line.width or 1, shape.line.dash)
        if shape.type == "rect":
            rect = f'x="{first:.1f}" y="{box.top}" width="{last - first:.1f}" height="{box.bottom - box.top:.1f}"'
            yield f'<rect {rect} fill="{shape.fillcolor}" {style}/>'
        else:
            yield f'<path d="M{first:.1f},{box.top}V{box.bottom}" fill="none" {style}/>'


def _lines(traces: Sequence[Any], axes: dict[str, Scale], name: str) -> Iterator[str]:
    """Lines, and the filled areas between a line and the one before it."""
    before: tuple[Floats, Floats] | None = None
    for trace in traces:
        if "lines" not in trace.mode:
            continue
        x, y = axes["x"].at(trace.x), axes[trace.yaxis or "y"].at(trace.y)
        if trace.line.shape == "hv":
            x, y = svg_paths.staircase(x, y)
        x, y = svg_paths.thinned(x, y) if len(x) > 1 and (np.diff(x) >= 0).all() else (x, y)
        clip = f'clip-path="url(#{name}-{trace.yaxis or "y"})"'
        if trace.fill == "tonexty" and before is not None:
            area = svg_paths.area_path(x, y, *before)
            yield f'<g {clip}><path transform="scale(.1)" d="{area}" fill="{trace.fillcolor}"/></g>'
        before = (x, y)
        style = svg_paths.stroke_attributes(
            trace.line.color or BLUE, trace.line.width or 2, trace.line.dash, scale=svg_paths.TENTHS
        )
        yield f'<g {clip}><path transform="scale(.1)" d="{svg_paths.line_path(x, y)}" class="line" {style}/></g>'


def _markers(traces: Sequence[Any], axes: dict[str, Scale]) -> Iterator[str]:
    """Those in view along x, with their hover text as a title."""
    scale = axes["x"]
    for trace in traces:
        if "markers" not in trace.mode:
            continue
        height = axes[trace.yaxis or "y"]
        xs, ys = scale.at(trace.x), height.at(trace.y)
        inside = (xs >= scale.start - 1) & (xs <= scale.end + 1) & (ys >= height.end - 1) & (ys <= height.start + 1)
        for index in np.flatnonzero(inside).tolist():
            yield _marker(trace, index, xs[index], ys[index])
            if "text" in trace.mode:
                yield _name(trace, index, xs, ys)


def _marker(trace: Any, index: int, x: float, y: float) -> str:
    size, outline = _at(trace.marker.size, index), trace.marker.line
    if not size:
        return ""  # the tail of an arrow
    path, outlined = svg_paths.symbol_path(_at(trace.marker.symbol, index) or "circle", size)
    color = outline.color or _at(trace.marker.color, index) or trace.line.color
    style = (
        f'fill="none" {svg_paths.stroke_attributes(color, outline.width or 1.4, None)}'
        if outlined
        else f'fill="{color}"'
    )
    place = f'transform="translate({x:.1f},{y:.1f})"'
    return f'<path {place} d="{path}" {style}><title>{_hover(trace, index)}</title></path>'


def _name(trace: Any, index: int, xs: Floats, ys: Floats) -> str:
    """The text beside a marker, or the first word of it (the number of an incident), so that no marker is covered."""
    text, size = trace.text[index], _at(trace.marker.size, index)
    row, _, column = (_at(trace.textposition, index) or "middle right").partition(" ")
    side = -1 if column == "left" else 1
    distance = side * (xs[ys == ys[index]] - xs[index])
    room = distance[distance > 0].min(initial=np.inf) - 2 * size
    text = next((each for each in (text, text.partition(" ")[0]) if LETTER_WIDTH * len(each) <= room), "")
    if not text:
        return ""
    anchor, y = "end" if side < 0 else "start", ys[index] + TEXT_ROWS[row]
    return f'<text x="{xs[index] + side * size:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_text(text)}</text>'


def _hover(trace: Any, index: int) -> str:
    """The hover template of a marker, filled in."""
    point = {"x": trace.x[index], "y": trace.y[index]}
    point["text"] = trace.text[index] if isinstance(trace.text, list | tuple | np.ndarray) else ""
    point["customdata"] = None if trace.customdata is None else trace.customdata[index]

    def filled(match: re.Match[str]) -> str:
        value, form = point[match[1]], match[3]
        value = value if match[2] is None else value[int(match[2])]
        return str(value) if form is None or isinstance(value, str) else tick_text(float(value), form)

    template = (trace.hovertemplate or "").removesuffix("<extra></extra>")
    text = re.sub(r"%\{(\w+)(?:\[(\d)\])?(?::([^}]*))?\}", filled, template)
    return html.escape(html.unescape(text.replace("<br>", "\n")))


def _titles(annotations: Sequence[Any], box: Box) -> Iterator[str]:
    for each in annotations:
        yield f'<text x="{box.left}" y="{box.y_at(each.y) - (each.yshift or 0):.1f}">{_text(each.text)}</text>'


def _text(plotly: str) -> str:
    """Plotly's text as SVG: the tags that the figures use are converted, everything else is escaped."""
    pieces = re.split(r"(</?(?:b|sup)>)", plotly)
    return "".join(TAGS.get(piece) or html.escape(html.unescape(piece)) for piece in pieces)


def _at(value: Any, index: int) -> Any:
    """`value` is one for all markers, or a sequence with one for each."""
    return value if value is None or isinstance(value, str | int | float) else value[index]
