"""Lines and markers as compact SVG paths. Pure.

Lines are thinned: of the points in one column of the picture, the first, the lowest, the highest and the last remain,
so that a spike of one step keeps its full height. Coordinates are tenths of a unit, which saves the decimal points.
"""

from collections.abc import Iterator

import numpy as np

from dashboard.axes import Floats

COLUMN_WIDTH = 1.0
"""In units of the picture."""
TENTHS = 10
DASHES = {"dash": (6, 4), "dot": (1.5, 2.5)}


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """`x` must rise. Gaps (NaN) remain."""
    if len(x) < 5:
        return x, y
    starts = np.flatnonzero(np.diff(np.floor(x / COLUMN_WIDTH), prepend=-np.inf))
    if len(starts) * 4 >= len(x):
        return x, y
    indices: list[int] = []
    for first, last in zip(starts, np.append(starts[1:], len(x)), strict=True):
        indices += _extremes(y[first:last], int(first))
    return x[indices], y[indices]


def _extremes(column: Floats, first: int) -> list[int]:
    """Indices of the first, lowest, highest and last value, and of one gap; `first`: that of the first value."""
    found = {0, len(column) - 1}
    gaps = np.isnan(column)
    if not gaps.all():
        found |= {int(np.nanargmin(column)), int(np.nanargmax(column))}
    if gaps.any():
        found.add(int(gaps.argmax()))
    return [first + each for each in sorted(found)]


def line_path(x: Floats, y: Floats) -> str:
    """The `d` of a path through these points, with gaps where one is not finite."""
    parts = []
    for first, last in _runs(np.isfinite(x) & np.isfinite(y)):
        points = np.rint(TENTHS * np.stack([x[first:last], y[first:last]], axis=1)).astype(np.int64)
        moves = np.diff(points, axis=0)
        moves = moves[(moves != 0).any(axis=1)]
        start = f"M{points[0, 0]},{points[0, 1]}"
        # A lone value becomes a dot: a path without length shows its round line caps.
        parts.append(start + ("l" + _numbers(moves) if len(moves) else "h0"))
    return "".join(parts)


def area_path(x: Floats, low: Floats, other_x: Floats, high: Floats) -> str:
    """The `d` of the area between two lines without gaps."""
    if not len(x) or not len(other_x):
        return ""
    return line_path(np.concatenate([x, other_x[::-1]]), np.concatenate([low, high[::-1]])) + "z"


def staircase(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The corners of a line that holds each value until the next."""
    return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]


def _runs(present: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Index ranges [first, last) without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _numbers(moves: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> str:
    """A minus sign separates numbers as a comma does."""
    return ",".join(map(str, moves.ravel().tolist())).replace(",-", "-")


def stroke_attributes(color: str, width: float, dash: str | None, *, scale: float = 1.0) -> str:
    """Attributes of a line; lengths are in units of the picture, of which the path's own are `scale` times smaller."""
    pattern = " ".join(f"{scale * length:g}" for length in DASHES.get(dash or "", ()))
    return f'stroke="{color}" stroke-width="{scale * width:g}"' + (f' stroke-dasharray="{pattern}"' if pattern else "")


def symbol_path(name: str, size: float) -> tuple[str, bool]:
    """The `d` of plotly's marker `name` around 0, 0, and whether it is an outline."""
    radius = size / 2
    shape = name.removesuffix("-open")
    return SHAPES[shape].format(r=_short(radius), d=_short(2 * radius), h=_short(radius / 2)), name in OUTLINED


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


SHAPES = {
    "circle": "M-{r},0a{r},{r} 0 1,0 {d},0a{r},{r} 0 1,0 -{d},0z",
    "square": "M-{r}-{r}h{d}v{d}h-{d}z",
    "square-x": "M-{r}-{r}h{d}v{d}h-{d}zl{d},{d}m0-{d}l-{d},{d}",
    "diamond": "M0-{r}l{r},{r}-{r},{r}-{r}-{r}z",
    "triangle-down": "M-{r}-{h}h{d}l-{r},{d}z",
    "triangle-up": "M-{r},{h}h{d}l-{r}-{d}z",
    "triangle-left": "M{h}-{r}v{d}l-{d}-{r}z",
    "star": "M0-{r}L{h},{r}-{r}-{h}H{r}L-{h},{r}z",
    "x-thin": "M-{r}-{r}l{d},{d}m0-{d}l-{d},{d}",
}
OUTLINED = frozenset({"circle-open", "square-x-open", "diamond-open", "square-open", "triangle-up-open", "x-thin"})
