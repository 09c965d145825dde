"""Curves with spikes, for tests."""

import numpy as np


def spiked(num_rows: int = 600, *spikes: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    loss = 2.0 + np.random.default_rng(1).normal(0, 0.03, num_rows)
    for at in spikes:
        loss[at : at + 12] += 3.0
    return loss
