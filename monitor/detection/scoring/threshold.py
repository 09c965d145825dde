"""The scan statistics of residuals, and their thresholds: how large is a statistic once in so many rows?

Neighbouring residuals of a loss are often correlated: one that lies high is followed by others, and nothing is wrong.
So a sum is reduced by what the residual before it predicts of its rows: r + r^2 + .. + r^w times that residual, where r
is the autocorrelation (Box and Jenkins 1970).

Peaks over threshold as in SPOT (Siffer et al., KDD 2017): above a high quantile u the excess follows a generalised
Pareto law (Pickands 1975), fitted by its first two moments (Hosking and Wallis 1987), with the shape shrunk to a prior
because the excesses are few. The past of each statistic is one histogram with exponential forgetting, so memory and
state are constant. Each statistic has its own tail: heavy tails and autocorrelated noise (a smoothed loss) raise a
threshold as much as they raise its statistic.

The tail of a sum is an extrapolation from a few excesses. That of single values is known better, so a sum has a second
threshold from it: how large is the sum of values that have this tail and are independent of each other? In a run with
hard batches it needs no extrapolation: what two of them in a row make once in 200,000 rows is made of values that are
seen once in 450.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Any, TypeVar

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Bools, Floats
from monitor.detection.scoring.baseline import PREWHITENED, PRIOR_THRESHOLD

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


BIN_EDGES = np.geomspace(1.0, 120.0, 40)  # ratio 1.13; below 1.0 only the number of values matters
LOG_EDGES = np.log(BIN_EDGES)
BIN_CENTRES = np.concatenate([[0.0], (BIN_EDGES[1:] + BIN_EDGES[:-1]) / 2, [BIN_EDGES[-1]]])[None, :]
NUM_BINS = BIN_CENTRES.size
EXCESSES = np.maximum(BIN_CENTRES - BIN_EDGES[np.maximum(np.arange(NUM_BINS) - 1, 0)][:, None], 0.0)
"""float64[NUM_BINS, NUM_BINS]: of the values of each bin, over the lower edge of each bin but the first."""
TAIL_FRACTION = 0.03
"""Fraction of the values, the largest, that counts as the tail."""
MIN_VALUES = 64.0
"""Minimum values to fit the tail; a prior threshold serves until then."""
OF_SUMS = np.array([1.0] + [0.5] * (len(SPANS) - 1))
"""The shape of each tail, by that of single values: two large ones must meet in a sum, so half of it."""
PRIOR_SHAPES, MAX_SHAPES, PRIOR_WEIGHT = 0.2 * OF_SUMS, 0.6 * OF_SUMS, 10.0
"""Prior of the Pareto shape (between exponential, 0, and the heaviest we saw, 0.5), worth so many excesses."""
HALF_LIFE = 4000.0
"""Values after which the weight of a value has halved."""
SHARES = np.array([[1.0, 0.25, 0.25, 0.25, 0.25], [1.0, 0.05, 0.05, 0.05, 0.05]])
"""Shares of the target rate by statistic: for an incident, and for an action. For an action the four sums have a fifth
of it together: an extrapolated tail may be wrong by a factor of five. Single values count in sparse logs only, where a
true spike may be a single row."""
SURE = 1.25
"""An action needs so many times the thresholds from its shares; so does an incident while the tail is young."""
CORRELATED = np.array([1.0] + [sqrt((1.0 + PREWHITENED) / (1.0 - PREWHITENED))] * (len(SPANS) - 1))
"""Factors for sums of values with the largest autocorrelation that is judged without prewhitening. An action needs them
while the tail is young: the autocorrelation is not known yet."""
YOUNG = np.array([[SURE] * len(SPANS), CORRELATED])
MIN_TRUSTED = 200.0
"""Values, without those around alarms, below which a tail is young: it knows few excesses."""
PART = np.array([0.9, 0.9, 0.65, 0.65]) * np.sqrt(np.array(SPANS[1:]) - 1.0)
"""Fractions of the threshold of single values that apply to sums. For an incident, what a sum's own tail puts
above it is halved on a logarithmic scale: a few long excursions make that tail heavier than any sum of values can be.
"""
MIN_THRESHOLDS = np.array([6.0, 4.5, 5.0, 6.0, 7.2])
"""Lower bound of the threshold of each span, in standard deviations: less is not worth an alarm."""
PRIOR_THRESHOLDS = np.array([[PRIOR_THRESHOLD] * len(SPANS), PRIOR_THRESHOLD * CORRELATED])
"""Thresholds of a run whose tail is not known yet, for an incident and for an action."""
ROWS = np.arange(len(SPANS))
NUM_OTHERS = np.array(SPANS[1:]) - 2.0
"""Number of values in a sum, without the two largest."""
NUM_PAIRS = (NUM_OTHERS + 2.0) * (NUM_OTHERS + 1.0) / 2.0


class TailThresholds:
    """Histograms float64[S, NUM_BINS] of the scan statistics, and their thresholds float64[S].

    `values`: for an incident; `sure`: for an action.
    """

    def __init__(self) -> None:
        self.histograms = np.zeros((len(SPANS), NUM_BINS))
        self.values, self.sure = PRIOR_THRESHOLDS

    def add(self, statistics: Floats, counted: Bools, chunk: int | None = None) -> None:
        """Age the histograms by N values and add statistics[S, N] where counted[S, N], `chunk` values at a time."""
        num_values = statistics.shape[1]
        chunk = chunk or num_values
        bins = np.searchsorted(BIN_EDGES, statistics) + ROWS[:, None] * NUM_BINS
        bins += np.arange(num_values) // chunk * self.histograms.size
        num_chunks = num_values // chunk
        new = np.bincount(bins[counted], minlength=num_chunks * self.histograms.size)
        weight = 0.5 ** (chunk / HALF_LIFE)
        for each in new.reshape(num_chunks, *self.histograms.shape):
            # float32 keeps the state small; rounding here, always, keeps a restored state exact
            aged = self.histograms * weight + each
            self.histograms = aged.astype(np.float32).astype(np.float64)

    def fit(self, probability: float) -> None:
        """Thresholds that each statistic exceeds with its shares of this probability at a value."""
        above = np.add.accumulate(self.histograms[:, ::-1], axis=1)[:, ::-1]
        total = above[:, 0]
        is_tail = above >= np.maximum(TAIL_FRACTION * total, 4.0)[:, None]
        first = np.maximum(np.add.reduce(is_tail, axis=1) - 1, 1)
        num_excesses = above[ROWS, first]
        excess = EXCESSES[first]
        weighted = self.histograms / np.maximum(num_excesses, 1e-9)[:, None] * excess
        mean = np.add.reduce(weighted, axis=1)
        variance = np.maximum(np.add.reduce(weighted * excess, axis=1) - mean * mean, 1e-9)
        shape = 0.5 * (1.0 - mean * mean / variance)
        shape = (num_excesses * shape + PRIOR_WEIGHT * PRIOR_SHAPES) / (num_excesses + PRIOR_WEIGHT)
        shape = np.minimum(np.maximum(shape, 0.01), MAX_SHAPES)
        rarity = np.maximum(num_excesses / np.maximum(total, 1.0) / (probability * SHARES), 1.0)
        level = BIN_EDGES[first - 1] + mean * (1.0 - shape) / shape * (rarity**shape - 1.0)
        level[0, 1:] = np.minimum(level[0, 1:], np.sqrt(PART * level[0, 0] * np.maximum(level[0, 1:], 0.0)))
        level[:, 1:] = np.maximum(level[:, 1:], _of_pairs(above[0, 1:] / max(total[0], 1.0), probability))
        level = np.maximum(MIN_THRESHOLDS, level)
        level[1] *= SURE
        level = np.where(total < MIN_TRUSTED, level * YOUNG, level)
        self.values, self.sure = np.where(total >= MIN_VALUES, level, PRIOR_THRESHOLDS)

    def state_dict(self) -> dict[str, Any]:
        num_used = int(np.flatnonzero(self.histograms.sum(axis=0)).max(initial=0)) + 1
        used = self.histograms[:, :num_used]
        return {"histograms": pack(used, "<f4"), "values": pack(self.values), "sure": pack(self.sure)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        used = unpack(state["histograms"], "<f4").reshape(len(SPANS), -1)
        self.histograms = np.zeros((len(SPANS), NUM_BINS))
        self.histograms[:, : used.shape[1]] = used
        self.values, self.sure = unpack(state["values"]), unpack(state["sure"])


def _of_pairs(survival: Floats, probability: float) -> Floats:
    """Sums of independent values that are exceeded with their shares of this probability.

    `survival`: the probabilities that a single value exceeds BIN_EDGES. A sum leaves out its largest value, so two
    large ones make it, and every pair of its values may. The others, of unit variance, add one standard deviation.
    """
    second = np.exp(np.interp(_of_both(probability), -np.log(np.maximum(survival, 1e-12)), LOG_EDGES))
    sums: Floats = (second + np.sqrt(NUM_OTHERS)) / np.sqrt(NUM_OTHERS + 1.0)
    return sums


@lru_cache
def _of_both(probability: float) -> Floats:
    """Minus the logarithm of the probability of each of the two large values of a pair."""
    both: Floats = -0.5 * np.log(probability * SHARES[:, 1:] / NUM_PAIRS)
    return both
