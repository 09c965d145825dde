"""A trace with values that plotly.js can draw, in as few bytes as show no difference. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import formatting
from dashboard.axes import Floats

SMALLEST, LARGEST = 1e-300, 1e300
"""Sizes that plotly.js can draw: it ignores larger values, and a range of smaller ones stops it."""
SINGLE_PRECISION = np.finfo(np.float32)
RESOLUTION = 2.0**-12
"""Smallest ratio of the range of values to the largest one at which single precision is finer than a pixel."""


def drawable(values: Floats) -> Floats:
    """Limit sizes to SMALLEST to LARGEST, or 0; NaN and infinity stay."""
    sizes = np.clip(np.abs(values), SMALLEST, LARGEST)
    return np.where((values == 0) | ~np.isfinite(values), values, np.copysign(sizes, values))


def as_float32(values: Floats, shown: tuple[float, float] | None = None) -> NDArray[Any]:
    """Return single precision, or the values unchanged if they are too large, too small or nearly equal for it.

    The perplexity of a loss above 88.7, for example, is too large. `shown` is the smallest and the largest value that
    the axis shows; None for all of them.
    """
    finite = values[np.isfinite(values)]
    sizes = np.abs(finite[finite != 0])
    if not len(sizes):
        return values.astype(np.float32)
    smallest, largest = sizes.min(), sizes.max()
    is_held = SINGLE_PRECISION.tiny <= smallest and largest <= SINGLE_PRECISION.max
    if not is_held:
        return values
    if shown is not None:
        return values.astype(np.float32) if shown[1] - shown[0] >= RESOLUTION * np.abs(shown).max() else values
    is_wide = np.ptp(finite) == 0 or np.ptp(finite) >= RESOLUTION * largest
    return values.astype(np.float32) if is_wide else values


FAR = 1e6
"""Widths of a linear axis beyond which browsers cannot draw a line to a point."""


def packed(trace: dict[str, Any], shown: tuple[float, float] | None, *, log: bool) -> dict[str, Any]:
    """Pack a trace. `shown`: the smallest and the largest value that its axis shows; None for all values."""
    values = drawable(np.asarray(trace["y"], dtype=np.float64))
    if shown is None or log:
        return trace | {"y": as_float32(values, shown)}
    drawn = _near(values, shown)
    is_moved = np.isfinite(values) & (drawn != values)
    return trace | {"y": as_float32(drawn, shown)} | (_hover_of_values(trace) if is_moved.any() else {})


def _near(values: Floats, shown: tuple[float, float]) -> Floats:
    """Move values far outside the axis nearer to it."""
    far = FAR * (shown[1] - shown[0])
    moved: Floats = np.clip(values, max(shown[0] - far, -LARGEST), min(shown[1] + far, LARGEST))
    return np.where(np.isfinite(values), moved, values)


def _hover_of_values(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Show each value as text: points are not where their values are."""
    template = re.sub(r"%\{y:[^}]*\}", "%{text}", trace.get("hovertemplate") or "")
    return {"hovertemplate": template, "text": [formatting.number(value) for value in trace["y"]]} if template else {}
