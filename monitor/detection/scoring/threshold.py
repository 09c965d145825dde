"""The run's own tail: how large must a statistic be to be an alarm once in so many rows?

Peaks over threshold as in SPOT (Siffer et al., KDD 2017): above a high quantile u the excess follows a generalised
Pareto law (Pickands 1975), fitted by its first two moments (Hosking and Wallis 1987), with the shape shrunk to a prior
because the excesses are few. The past is kept as one histogram per statistic that slowly forgets, so memory and state
are constant. Each statistic has a tail of its own, so heavy tails, and noise that is correlated from row to row (a
smoothed loss), raise the thresholds by what they really do to that statistic.
"""

from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Bools, Floats

EDGES = np.geomspace(1.0, 120.0, 40)  # ratio 1.13; below 1.0 only the number of values matters
MIDDLES = np.concatenate([[0.0], (EDGES[1:] + EDGES[:-1]) / 2, [EDGES[-1]]])
CENTRES = MIDDLES[None, :]
BINS = len(MIDDLES)
UPPER = 0.03
"""The part of the values that counts as the tail."""
ENOUGH = 64.0
"""Values before the tail is fitted; a prior threshold serves until then."""
PRIOR_SHAPE, PRIOR_WEIGHT = 0.2, 10.0
"""Prior of the Pareto shape (between exponential, 0, and the heaviest we saw, 0.5), worth so many excesses."""
HALF_LIFE = 4000.0
"""Values after which a value counts half."""


class TailThresholds:
    """Histograms float64[S, BINS] of S statistics and their thresholds float64[S]."""

    def __init__(self, floors: Floats, priors: Floats) -> None:
        self.floors, self.priors = floors, priors
        self.counts = np.zeros((len(floors), BINS))
        self.offsets = np.arange(len(floors))[:, None] * BINS
        self.thresholds = priors

    def learn(self, values: Floats, teaches: Bools) -> None:
        """Take in values[S, N] where teaches[S, N], each worth the same, after ageing what is known by N rows."""
        bins = np.searchsorted(EDGES, values) + self.offsets
        new = np.bincount(bins[teaches], minlength=self.counts.size).reshape(self.counts.shape)
        # float32 keeps the state small; rounding here, always, keeps a restored state exact
        aged = self.counts * 0.5 ** (values.shape[1] / HALF_LIFE) + new
        self.counts = aged.astype(np.float32).astype(np.float64)

    def fit(self, probability: Floats) -> None:
        """Thresholds that each statistic exceeds with its probability[S] at a value."""
        above = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]
        total = above[:, 0]
        first = np.maximum((above >= np.maximum(UPPER * total, 4.0)[:, None]).sum(axis=1) - 1, 1)
        rows = np.arange(len(total))
        edge = EDGES[first - 1]
        count = above[rows, first]
        excess = np.maximum(CENTRES - edge[:, None], 0.0)
        weights = self.counts / np.maximum(count, 1e-9)[:, None]
        mean = (weights * excess).sum(axis=1)
        variance = np.maximum((weights * excess * excess).sum(axis=1) - mean * mean, 1e-9)
        shape = 0.5 * (1.0 - mean * mean / variance)
        shape = (count * shape + PRIOR_WEIGHT * PRIOR_SHAPE) / (count + PRIOR_WEIGHT)
        shape = np.minimum(np.maximum(shape, 0.01), 0.6)
        rarity = np.maximum(count / np.maximum(total, 1.0) / probability, 1.0)
        level = edge + mean * (1.0 - shape) / shape * (rarity**shape - 1.0)
        self.thresholds = np.maximum(self.floors, np.where(total >= ENOUGH, level, self.priors))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": pack(self.counts, "<f4"), "thresholds": pack(self.thresholds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = unpack(state["counts"], "<f4").reshape(self.counts.shape)
        self.thresholds = unpack(state["thresholds"])
