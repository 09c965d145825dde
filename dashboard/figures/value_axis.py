"""The values of a panel and its axis: the part that it shows, made for the live line in view, and its scale. Pure.

A few extreme values do not flatten the rest: the axis ends before those that would leave the others a sixth of it. Nor
does the steep fall at the beginning of a run: the rest has at least half of the axis. What lies outside is marked on
the edge of the panel (lines.py). Some metrics have a log axis always, some if a spike would flatten everything else.

A trace gets values that plotly.js can draw, in half the bytes where the difference cannot be seen.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import formatting
from dashboard.axes import Floats
from lossguard.vocabulary.metrics import METRICS, LogAxis

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
    far = FAR * (shown[1] - shown[0])
    moved = np.clip(values, max(shown[0] - far, -LARGEST), min(shown[1] + far, LARGEST))
    drawn = np.where(np.isfinite(values), moved, values)
    result = trace | {"y": as_float32(drawn, shown)}
    if (np.isfinite(values) & (drawn != values)).any() and trace.get("hovertemplate"):
        # Points are not where their values are, which hover texts show.
        result["hovertemplate"] = re.sub(r"%\{y:[^}]*\}", "%{text}", trace["hovertemplate"])
        result["text"] = [formatting.number(value) for value in trace["y"]]
    return result


Range = tuple[float, float]
"""Ends of an axis as plotly has them: exponents of ten on a log axis."""

TAIL = 0.05
"""Share of the buckets at each end of the values that may be extreme; of fewer than 20 buckets none is."""
REACH = 5.0
"""Distance from the middle 90% in widths of it, from which a value is extreme."""
MIN_SHARE, MIN_DECADES = 0.01, 0.3
"""Smallest width of the middle that counts: a share of its values, and decades on a log axis."""
FALL = 0.2
"""Share of the buckets, the first ones, that may lie above the axis."""
HEADROOM = 0.06
"""Free share of the axis beyond the values, at each end."""
CONSTANT = 1e-6
"""Values that differ by less than this share of them are one."""
LARGEST_EXPONENT = 300.0
SMALLEST_WIDTH = 1e-290
"""Smallest width of a linear axis: plotly.js cannot draw smaller numbers."""


def axis_range(low: Floats, high: Floats, *, log: bool, fit_all: bool = False) -> Range | None:
    """Return the axis range of buckets from `low` to `high` (NaN: none); None if the axis can show none.

    With `fit_all` the axis shows extreme values too.
    """
    highest = _on_axis(high, log=log)
    lowest = highest if low is high else _on_axis(low, log=log)
    if not len(highest):
        return None
    if not len(lowest):  # on a log axis, each bucket has values of 0 and below
        lowest = highest
    if fit_all:
        return _with_headroom(float(lowest[0]), float(highest[-1]), log=log)
    bottom, top = _without_extremes(lowest, highest, log=log)
    rest = slice(int(FALL * len(low)), None)
    settled = [_on_axis(column[rest], log=log) for column in (low, high)]
    if not log and len(high) * TAIL >= 1 and all(map(len, settled)):
        low_rest, high_rest = _without_extremes(settled[0], settled[1], log=log)
        top = min(top, max(high_rest + (high_rest - low_rest), bottom + MIN_SHARE * abs(bottom)))
    return _with_headroom(bottom, top, log=log)


def _on_axis(values: Floats, *, log: bool) -> Floats:
    """Positions of the finite values along the axis, in order."""
    values = values[np.isfinite(values)]
    largest = LARGEST_EXPONENT if log else LARGEST
    return np.sort(np.clip(np.log10(values[values > 0]) if log else values, -largest, largest))


def _without_extremes(lowest: Floats, highest: Floats, *, log: bool) -> Range:
    first = float(lowest[int(TAIL * len(lowest))])
    last = float(highest[-1 - int(TAIL * len(highest))])
    smallest_width = MIN_DECADES if log else MIN_SHARE * max(abs(first), abs(last))
    reach = REACH * max(last - first, smallest_width) or np.inf  # what is mostly 0 has no extremes
    above = int(np.searchsorted(lowest, first - reach, side="left"))
    below = int(np.searchsorted(highest, last + reach, side="right"))
    return float(lowest[above]), float(highest[below - 1])


def _with_headroom(low: float, high: float, *, log: bool) -> Range:
    size = max(abs(low), abs(high))
    if high - low <= max(CONSTANT * size, 0.0 if log else SMALLEST_WIDTH):
        low = high = low / 2 + high / 2
        room = MIN_DECADES if log else abs(low) if abs(low) > SMALLEST_WIDTH else 1.0
    else:
        room = HEADROOM * (high - low)
    largest = LARGEST_EXPONENT if log else LARGEST
    return max(low - room, -largest), min(high + room, largest)


ALWAYS_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.ALWAYS)
AUTO_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.AUTO)
PEAK_RATIO = 10
"""Ratio of the largest value to the median above which a linear axis would flatten the rest of the curve."""


def log_axes(columns: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """Metrics with a log axis; `columns`: by metric what its panel shows, None and NaN for gaps."""
    return always_log(columns) | {name for name in AUTO_LOG if name in columns and _has_high_peak(columns[name])}


def always_log(columns: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """Metrics that have a log axis whatever their values are, except where it could show none of them."""
    return frozenset(name for name in ALWAYS_LOG if not len(found := _finite(columns.get(name, ()))) or found.max() > 0)


def _has_high_peak(columns: Sequence[Any]) -> bool:
    values = _finite(columns)
    if not len(values) or values.min() <= 0:
        return False
    # The lower median of an even number of values: no sum, and so no overflow.
    return bool(values.max() / PEAK_RATIO > np.quantile(values, 0.5, method="lower"))


def _finite(columns: Sequence[Any]) -> Floats:
    values: Floats = np.concatenate([np.empty(0), *(np.asarray(column, dtype=np.float64) for column in columns)])
    return values[np.isfinite(values)]
