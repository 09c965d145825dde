"""Sums over the last observations: the scan statistics of residuals, and a rolling mean."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from monitor.detection.rows import Floats

SPANS = (1, 2, 3, 6, 12)
"""Lengths, in observations, over which residuals are summed."""
LEAD = SPANS[-1] - 1
"""Observations that the sums over the longest span need before the first one."""


def scan_statistics(z: Floats, out: Floats) -> None:
    """Write the statistics of the last N values into out[S, N]; z[LEAD + N] begins LEAD values earlier.

    Over each span of w values: the sum of all but the largest, over sqrt(w - 1). Span 1 is the value itself.
    """
    size = out.shape[1]
    total, top = z, z
    out[0] = z[LEAD:]
    for row, (span, shift) in enumerate(((2, 1), (3, 0), (6, 3), (12, 6)), start=1):
        if span == 3:  # from 2: the value before those two
            total, top = total[1:] + z[: len(total) - 1], np.maximum(top[1:], z[: len(top) - 1])
        else:  # twice the span before
            total, top = total[shift:] + total[:-shift], np.maximum(top[shift:], top[:-shift])
        out[row] = (total[-size:] - top[-size:]) / sqrt(span - 1.0)


def last_statistics(z: Sequence[float]) -> tuple[float, float, float, float, float]:
    """The same of the last value alone, to the last bit; z has the LEAD values before it too."""
    a, b, c, d, e, f, g, h, i, j, k, x = z
    three, three_before = (x + k) + j, (i + h) + g
    six, six_before = three + three_before, ((f + e) + d) + ((c + b) + a)
    top_two = max(x, k)
    top_three = max(top_two, j)
    top_six = max(top_three, i, h, g)
    top_twelve = max(top_six, f, e, d, c, b, a)
    return (
        x,
        x + k - top_two,
        (three - top_three) / sqrt(2.0),
        (six - top_six) / sqrt(5.0),
        (six + six_before - top_twelve) / sqrt(11.0),
    )


def rolling_mean(values: Floats) -> Floats:
    """The mean of LEAD + 1 = 12 values, at each value after the first LEAD."""
    pairs = values[1:] + values[:-1]
    fours = pairs[2:] + pairs[:-2]
    return (fours[8:] + fours[4:-4] + fours[:-8]) / (LEAD + 1.0)
