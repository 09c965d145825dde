"""Batches of a sequence in which each token is its own position."""

from typing import Any

import numpy as np

from trainer.data.batches import TokenBatches
from trainer.data.tokenizer import Ids
from trainer.data.tokens import Shard
from trainer.data.windows import Windows


def make_batches(
    *, num_windows: int = 50, seed: int = 0, batch_size: int = 4, curriculum_steps: int = 0
) -> TokenBatches:
    tokens = np.arange(num_windows * 3 + 1, dtype=np.uint16)
    return batches_of(tokens, seed=seed, batch_size=batch_size, curriculum_steps=curriculum_steps)


def batches_of(tokens: Shard, *, context: int = 3, **settings: Any) -> TokenBatches:
    windows = Windows([tokens], context)
    return TokenBatches(windows, size=len(windows), vocab_size=65536, tokenizer=Ids(None), **settings)
