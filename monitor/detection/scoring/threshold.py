"""Alarm thresholds from the run's own tail: how large is a statistic once in so many rows?

Peaks over threshold as in SPOT (Siffer et al., KDD 2017): above a high quantile u the excess follows a generalised
Pareto law (Pickands 1975), fitted by its first two moments (Hosking and Wallis 1987), with the shape shrunk to a prior
because the excesses are few. The past of each statistic is one histogram with exponential forgetting, so memory and
state are constant. Each statistic has its own tail: heavy tails and autocorrelated noise (a smoothed loss) raise a
threshold as much as they raise its statistic.
"""

from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Bools, Floats

BIN_EDGES = np.geomspace(1.0, 120.0, 40)  # ratio 1.13; below 1.0 only the number of values matters
BIN_CENTRES = np.concatenate([[0.0], (BIN_EDGES[1:] + BIN_EDGES[:-1]) / 2, [BIN_EDGES[-1]]])[None, :]
NUM_BINS = BIN_CENTRES.size
TAIL_FRACTION = 0.03
"""Of the values, the largest: they count as the tail."""
MIN_VALUES = 64.0
"""Before the tail is fitted; a prior threshold serves until then."""
PRIOR_SHAPE, PRIOR_WEIGHT = 0.2, 10.0
"""Prior of the Pareto shape (between exponential, 0, and the heaviest we saw, 0.5), worth so many excesses."""
HALF_LIFE = 4000.0
"""Values after which the weight of a value has halved."""


class TailThresholds:
    """Histograms float64[S, NUM_BINS] of S statistics, and their thresholds `values` float64[S]."""

    def __init__(self, floors: Floats, priors: Floats) -> None:
        self.floors, self.priors = floors, priors
        self.histograms = np.zeros((len(floors), NUM_BINS))
        self.offsets = np.arange(len(floors))[:, None] * NUM_BINS
        self.values = priors

    def add(self, statistics: Floats, counted: Bools) -> None:
        """Age the histograms by N values, then add statistics[S, N] where counted[S, N]."""
        bins = np.searchsorted(BIN_EDGES, statistics) + self.offsets
        new = np.bincount(bins[counted], minlength=self.histograms.size).reshape(self.histograms.shape)
        # float32 keeps the state small; rounding here, always, keeps a restored state exact
        aged = self.histograms * 0.5 ** (statistics.shape[1] / HALF_LIFE) + new
        self.histograms = aged.astype(np.float32).astype(np.float64)

    def fit(self, probability: float) -> None:
        """Thresholds that each statistic exceeds with this probability at a value."""
        above = np.cumsum(self.histograms[:, ::-1], axis=1)[:, ::-1]
        total = above[:, 0]
        first = np.maximum((above >= np.maximum(TAIL_FRACTION * total, 4.0)[:, None]).sum(axis=1) - 1, 1)
        edge = BIN_EDGES[first - 1]
        num_excesses = above[np.arange(len(total)), first]
        excess = np.maximum(BIN_CENTRES - edge[:, None], 0.0)
        weights = self.histograms / np.maximum(num_excesses, 1e-9)[:, None]
        mean = (weights * excess).sum(axis=1)
        variance = np.maximum((weights * excess * excess).sum(axis=1) - mean * mean, 1e-9)
        shape = 0.5 * (1.0 - mean * mean / variance)
        shape = (num_excesses * shape + PRIOR_WEIGHT * PRIOR_SHAPE) / (num_excesses + PRIOR_WEIGHT)
        shape = np.minimum(np.maximum(shape, 0.01), 0.6)
        rarity = np.maximum(num_excesses / np.maximum(total, 1.0) / probability, 1.0)
        level = edge + mean * (1.0 - shape) / shape * (rarity**shape - 1.0)
        self.values = np.maximum(self.floors, np.where(total >= MIN_VALUES, level, self.priors))

    def state_dict(self) -> dict[str, Any]:
        num_used = int(np.flatnonzero(self.histograms.sum(axis=0)).max(initial=0)) + 1
        used = self.histograms[:, :num_used]
        return {"histograms": pack(used, "<f4"), "values": pack(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        used = unpack(state["histograms"], "<f4").reshape(len(self.floors), -1)
        self.histograms = np.zeros((len(self.floors), NUM_BINS))
        self.histograms[:, : used.shape[1]] = used
        self.values = unpack(state["values"])
