"""A figure's numbers as plotly.js can draw them, in half the bytes where the difference cannot be seen. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.axes import Floats

SMALLEST, LARGEST = 1e-300, 1e300
"""Sizes that plotly.js can draw: it ignores larger values, and a range of smaller ones stops it."""
LIMITS = np.finfo(np.float32)
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
    is_held = LIMITS.tiny <= smallest and largest <= LIMITS.max
    if not is_held:
        return values
    if shown is not None:
        return values.astype(np.float32) if shown[1] - shown[0] >= RESOLUTION * np.abs(shown).max() else values
    is_wide = np.ptp(finite) == 0 or np.ptp(finite) >= RESOLUTION * largest
    return values.astype(np.float32) if is_wide else values
