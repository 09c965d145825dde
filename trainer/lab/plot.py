"""A line plot as an SVG file, without a plotting library: the pages of the documentation show it as it is."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 400  # pixels
LEFT, RIGHT, TOP, BOTTOM = 80, 190, 40, 52  # margins in pixels; the legend stands on the right
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#999933", "#882255")
"""Okabe and Ito's, which colour-blind readers tell apart, and two more."""
MAX_TICKS = 7


@dataclass(kw_only=True, slots=True, frozen=True)
class PlottedCurve:
    """Points of a plot. Those that an axis cannot show (not finite, or not above 0 on a log axis) are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] = field(default=())
    """Half the length of the error bar of each dot, or half the height of the band around a line; NaN if unknown."""
    is_line: bool = True
    """True if the points are joined; otherwise each is a dot."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Axis:
    title: str
    is_log: bool = False

    def scale(self, values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
        """Return a function from a value to pixels between `start` and `end`, with a margin around all values."""
        places = [self._place(value) for value in values] or [0.0]
        low, high = min(places), max(places)
        margin = 0.04 * (high - low) or 0.5
        low, high = low - margin, high + margin
        return lambda value: start + (self._place(value) - low) / (high - low) * (end - start)

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.is_log)

    def ticks(self, values: Sequence[float]) -> list[float]:
        """At most about 7 round numbers within the range of the values."""
        if not values:
            return []
        low, high = min(values), max(values)
        if self.is_log:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            steps = next(
                steps for steps in ((1, 2, 5), (1, 3), (1,)) if len(steps) * len(decades) < 14 or steps == (1,)
            )
            found = [step * 10.0**decade for decade in decades for step in steps]
        else:
            spacing = _round_spacing((high - low) / MAX_TICKS)
            first = math.ceil(low / spacing)
            found = [number * spacing for number in range(first, math.floor(high / spacing) + 1)]
        return [tick for tick in found if low <= tick <= high]

    def _place(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def _round_spacing(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least this."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def svg(title: str, curves: Sequence[PlottedCurve], x_axis: Axis, y_axis: Axis) -> str:
    """The plot as the text of an SVG file, readable on a light and on a dark page."""
    shown = [_shown(curve, x_axis, y_axis) for curve in curves]
    xs = [x for points in shown for x, _, _ in points]
    ys = [
        bound for points in shown for _, y, error in points for bound in (y - error, y + error) if y_axis.shows(bound)
    ]
    to_x = x_axis.scale(xs, LEFT, WIDTH - RIGHT)
    to_y = y_axis.scale(ys, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 22, title, size=14),
        *(_tick(to_x(tick), HEIGHT - BOTTOM, to_x(tick), TOP, tick, below=True) for tick in x_axis.ticks(xs)),
        *(_tick(LEFT, to_y(tick), WIDTH - RIGHT, to_y(tick), tick, below=False) for tick in y_axis.ticks(ys)),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_axis.title, anchor="middle"),
        f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, y_axis.title, anchor="middle")}</g>',
    ]
    for number, (curve, points) in enumerate(zip(curves, shown, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        parts += _drawn(curve, points, to_x, to_y, y_axis, colour)
        place = TOP + 12 + 20 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{place - 9}" width="14" height="9" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 34, place, curve.name))
    return "\n".join([*parts, "</svg>", ""])


Points = list[tuple[float, float, float]]
"""x, y and half the error bar."""


def _shown(curve: PlottedCurve, x_axis: Axis, y_axis: Axis) -> Points:
    errors = curve.errors or [0.0] * len(curve.x)
    points = zip(curve.x, curve.y, (error if math.isfinite(error) else 0.0 for error in errors), strict=True)
    return [(x, y, error) for x, y, error in points if x_axis.shows(x) and y_axis.shows(y)]


def _drawn(
    curve: PlottedCurve,
    points: Points,
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    y_axis: Axis,
    colour: str,
) -> Iterator[str]:
    if curve.is_line:
        if any(error for *_, error in points):
            edges = [(x, y + error) for x, y, error in points] + [(x, y - error) for x, y, error in reversed(points)]
            outline = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in edges)
            yield f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.25"/>'
        places = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y, _ in points)
        yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        return
    for x, y, error in points:
        if error and y_axis.shows(y - error):
            ends = f'x1="{to_x(x):.1f}" y1="{to_y(y - error):.1f}" x2="{to_x(x):.1f}" y2="{to_y(y + error):.1f}"'
            yield f'<line {ends} stroke="{colour}" stroke-width="1.5"/>'
        yield f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="4" fill="{colour}"/>'


def _tick(x1: float, y1: float, x2: float, y2: float, value: float, *, below: bool) -> str:
    line = f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'
    number = f"{value:.0e}" if value and not 1e-4 <= abs(value) < 1e6 else f"{value:.6g}"
    place = _text(x1, y1 + 16, number, anchor="middle") if below else _text(x1 - 6, y1 + 4, number, anchor="end")
    return line + place


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222222">{escape(text)}</text>'
    )
