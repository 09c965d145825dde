"""Sums over the last observations: the scan statistics of residuals, and a rolling mean."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from monitor.detection.rows import Floats

SPANS = (1, 2, 3, 6, 12)
"""Lengths, in observations, over which residuals are summed."""
LEAD = SPANS[-1] - 1
"""Observations that the sums over the longest span need before the first one."""


def scan_statistics(z: Floats, plain: Floats, out: Floats) -> None:
    """Write the statistics of the last N values into out[S, N]; z and plain[LEAD + N] begin LEAD values earlier.

    Over each span of w values: the sum of all but the largest, over sqrt(w - 1). Span 1 is the value itself. The long
    spans take `plain`, the residuals without prewhitening: a step is one innovation, and no sum of the others.
    """
    size = out.shape[1]
    out[0] = z[LEAD:]
    total, top = z[1:] + z[:-1], np.maximum(z[1:], z[:-1])
    out[1] = total[-size:] - top[-size:]
    total, top = _threes(z, total, top)
    out[2] = (total[-size:] - top[-size:]) / sqrt(2.0)
    if plain is not z:
        total, top = _threes(plain, plain[1:] + plain[:-1], np.maximum(plain[1:], plain[:-1]))
    for row, span in ((3, 6), (4, 12)):  # twice the span before
        shift = span // 2
        total, top = total[shift:] + total[:-shift], np.maximum(top[shift:], top[:-shift])
        out[row] = (total[-size:] - top[-size:]) / sqrt(span - 1.0)


def _threes(z: Floats, pairs: Floats, top: Floats) -> tuple[Floats, Floats]:
    """Sums and maxima of three values, from those of pairs: each takes in the value before its pair."""
    return pairs[1:] + z[:-2], np.maximum(top[1:], z[:-2])


def last_statistics(z: Sequence[float], plain: Sequence[float]) -> tuple[float, float, float, float, float]:
    """The same of the last value alone, to the last bit; z has the 2 values before it too, plain the LEAD before it."""
    j, k, x = z[-3:]
    top_two = max(x, k)
    two, three = x + k - top_two, ((x + k) + j - max(top_two, j)) / sqrt(2.0)
    a, b, c, d, e, f, g, h, i, j, k, last = plain
    six, six_before = ((last + k) + j) + ((i + h) + g), ((f + e) + d) + ((c + b) + a)
    top_six = max(last, k, j, i, h, g)
    top_twelve = max(top_six, f, e, d, c, b, a)
    return x, two, three, (six - top_six) / sqrt(5.0), (six + six_before - top_twelve) / sqrt(11.0)


def rolling_mean(values: Floats) -> Floats:
    """The mean of LEAD + 1 = 12 values, at each value after the first LEAD."""
    pairs = values[1:] + values[:-1]
    fours = pairs[2:] + pairs[:-2]
    return (fours[8:] + fours[4:-4] + fours[:-8]) / (LEAD + 1.0)
