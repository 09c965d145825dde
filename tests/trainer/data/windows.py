"""Batches of a sequence in which each token is its own position."""

import numpy as np

from trainer.data.batches import Batches, Windows


def make_batches(*, num_windows: int = 50, seed: int = 0, batch_size: int = 4) -> Batches:
    tokens = np.arange(num_windows * 3 + 1, dtype=np.uint16)
    windows = Windows([tokens], context=3)
    return Batches(windows, size=len(windows), batch_size=batch_size, seed=seed, vocab_size=65536)
