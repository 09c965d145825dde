"""An n-gram model with Witten-Bell smoothing (Witten and Bell 1991): a reference that owes nothing to a neural network.

Shapes: N sequences, T positions.
"""

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NGram:
    """Counts of every n-gram up to `order` tokens in some sequences (N, T)."""

    def __init__(self, tokens_NT: NDArray[Any], *, order: int, vocab_size: int) -> None:
        self.order = order
        self.vocab_size = vocab_size
        self._counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for sequence in tokens_NT.tolist():
            for t, token in enumerate(sequence):
                for length in range(min(order - 1, t) + 1):
                    self._counts[tuple(sequence[t - length : t])][token] += 1
        self._totals = {history: counts.total() for history, counts in self._counts.items()}

    def probability(self, token: int, history: tuple[int, ...]) -> float:
        """Probability of `token` after `history`, never 0: each order is mixed with the next shorter one, which
        weighs as much as the number of different tokens that were seen after the history."""
        history = history[max(0, len(history) - self.order + 1) :]
        probability = 1.0 / self.vocab_size
        for start in range(len(history), -1, -1):
            counts = self._counts.get(history[start:])
            if counts is None:
                break  # a longer history was not seen either
            total = self._totals[history[start:]]
            probability = (counts[token] + len(counts) * probability) / (total + len(counts))
        return probability

    def losses(self, tokens_NT: NDArray[Any]) -> NDArray[np.float64]:
        """-log probability of each token after those before it in its sequence, in nats: (N, T)."""
        losses = [self._loss(sequence, t) for sequence in tokens_NT.tolist() for t in range(len(sequence))]
        return np.array(losses).reshape(tokens_NT.shape)

    def _loss(self, sequence: list[int], t: int) -> float:
        return -math.log(self.probability(sequence[t], tuple(sequence[max(0, t - self.order + 1) : t])))
