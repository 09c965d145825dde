"""A seeded shuffle of 0..size-1 that is computed item by item, with random access.

A Feistel network of four rounds permutes the smallest even power of two at or above `size`; a result outside the range
is permuted again until it is inside (cycle walking: Black and Rogaway 2002, "Ciphers with arbitrary finite
domains"). No table, so an epoch of a billion windows costs no memory.

Four rounds on few bits are far from uniform, so up to 256 items are sorted by random keys. Of more, every item has
every place equally often over the seeds, as far as a chi-squared test can say. Not all orders occur: keys are fewer.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4
MAX_SORTED_SIZE = 256
"""Largest size that is shuffled with a table."""


class Shuffle:
    """A permutation of range(size), a different one for every (seed, epoch)."""

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        assert size >= 1
        self.size = size
        generator = np.random.SeedSequence([seed, epoch])
        self._order: NDArray[np.int64] | None = None
        if size <= MAX_SORTED_SIZE:
            self._order = np.argsort(generator.generate_state(size, np.uint64), kind="stable")
        self._half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))  # bits of each half
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = generator.generate_state(ROUNDS, np.uint64)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The items at the given places of the shuffled order."""
        if self._order is not None:
            return self._order[places]
        items = self._permute(places.astype(np.uint64))
        while (outside := items >= self.size).any():
            items[outside] = self._permute(items[outside])
        return items.astype(np.int64)

    def _permute(self, items: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = items >> self._half, items & self._mask
        for key in self._keys:
            left, right = right, left ^ (_scramble(right + key) & self._mask)
        return (left << self._half) | right


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
