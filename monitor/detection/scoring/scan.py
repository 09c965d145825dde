"""Sums over the last observations: the scan statistics of residuals.

Neighbouring residuals of a loss are often correlated: one that lies high is followed by others, and nothing is wrong.
So a sum is reduced by what the residual before it predicts of its rows: r + r^2 + .. + r^w times that residual, where r
is the autocorrelation (Box and Jenkins 1970).
"""

from collections.abc import Sequence
from math import sqrt
from typing import TypeVar

import numpy as np

from monitor.detection.rows import Floats

SPANS = (1, 2, 3, 6, 12)
"""Lengths, in observations, over which residuals are summed."""
LEAD = SPANS[-1]
"""Observations that the sum over the longest span needs before the first one: its own, and the one that predicts it."""
Number = TypeVar("Number", float, Floats)


def scan_statistics(z: Floats, plain: Floats, short: Floats, long: Floats, out: Floats) -> None:
    """Write the statistics of the last N values into out[S, N]; z and plain[LEAD + N] begin LEAD values earlier.

    Over each span of w values: the sum of all but the largest, less what the value before them predicts, over
    sqrt(w - 1). Span 1 is the value itself. The long spans take `plain`, the residuals without prewhitening: a step is
    one innovation, and no sum of the others. `short`, `long`: the autocorrelation at each of the last N values, or one
    for all, for the spans of up to 3 values and for the others.
    """
    size = out.shape[1]
    out[0] = z[LEAD:]
    total, top = z[1:] + z[:-1], np.maximum(z[1:], z[:-1])
    out[1] = total[-size:] - top[-size:]
    total, top = _threes(z, total, top)
    out[2] = total[-size:] - top[-size:]
    if plain is not z:
        total, top = _threes(plain, plain[1:] + plain[:-1], np.maximum(plain[1:], plain[:-1]))
    for row, span in ((3, 6), (4, 12)):  # twice the span before
        shift = span // 2
        total, top = total[shift:] + total[:-shift], np.maximum(top[shift:], top[:-shift])
        out[row] = total[-size:] - top[-size:]
    if np.count_nonzero(long):
        two, three, _, _ = predicted_sums(short)
        _, _, six, twelve = predicted_sums(long)
        for row, span, factor in ((1, 2, two), (2, 3, three), (3, 6, six), (4, 12, twelve)):
            out[row] -= factor * plain[LEAD - span : LEAD - span + size]
    out[2] /= sqrt(2.0)
    out[3] /= sqrt(5.0)
    out[4] /= sqrt(11.0)


def predicted_sums(r: Number) -> tuple[Number, Number, Number, Number]:
    """Sums of the next 2, 3, 6 and 12 residuals after one of 1, by their autocorrelation."""
    square = r * r
    cube = square * r
    three = r + square + cube
    six = three + cube * three
    return r + square, three, six, six + cube * cube * six


def _threes(z: Floats, pairs: Floats, top: Floats) -> tuple[Floats, Floats]:
    """Sums and maxima of three values, from those of pairs: each takes in the value before its pair."""
    return pairs[1:] + z[:-2], np.maximum(top[1:], z[:-2])


def last_statistics(z: Sequence[float], plain: Sequence[float], short: float, long: float) -> Sequence[float]:
    """Return the exact statistics of the last value; `z` has the 2 values before it too, `plain` the LEAD before it."""
    j, k, x = z[-3:]
    top_two = max(x, k)
    two, three = x + k - top_two, (x + k) + j - max(top_two, j)
    before, a, b, c, d, e, f, g, h, i, j, k, last = plain
    six, six_before = ((last + k) + j) + ((i + h) + g), ((f + e) + d) + ((c + b) + a)
    top_six = max(last, k, j, i, h, g)
    top_twelve = max(top_six, f, e, d, c, b, a)
    six, twelve = six - top_six, six + six_before - top_twelve
    if long > 0.0:
        of_two, of_three, _, _ = predicted_sums(short)
        _, _, of_six, of_twelve = predicted_sums(long)
        two, three, six, twelve = two - of_two * j, three - of_three * i, six - of_six * f, twelve - of_twelve * before
    return x, two, three / sqrt(2.0), six / sqrt(5.0), twelve / sqrt(11.0)
