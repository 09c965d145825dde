"""Batches whose content is a pure function of (seed, batch index): skipping is a jump, replaying is exact.

Shapes: B sequences, T positions.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.config import Recipe
from trainer.data.batch import Batch as Batch  # what Batches consist of
from trainer.data.held_out import HeldOut
from trainer.data.shuffle import Shuffle
from trainer.data.split import rows_of, split
from trainer.data.tokens import check_ids, check_vocabulary, open_shards
from trainer.data.windows import Windows
from trainer.errors import UsageError

CHUNK_WINDOWS = 4096


class Batches:
    """Endless data: `batches[i]` is batch i of the data order. Every epoch has its own shuffle."""

    def __init__(
        self,
        windows: Windows,
        *,
        size: int,
        batch_size: int,
        seed: int,
        vocab_size: int,
        curriculum_steps: int = 0,
    ) -> None:
        """Batches of the first `size` windows, of which the first `curriculum_steps` are a curriculum."""
        self.windows = windows
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.vocab_size = vocab_size
        self._curriculum = easy_first(windows, self._shuffled(np.arange(curriculum_steps * batch_size)))

    def __getitem__(self, index: int) -> Batch:
        if index < 0:
            raise IndexError(f"batch indices are absolute and begin at 0, not {index}")
        tokens = self.windows.take(self.window_numbers(index))
        check_ids(tokens, self.vocab_size)
        return Batch.of_windows(index, tokens)

    def window_numbers(self, index: int) -> NDArray[np.int64]:
        """The numbers of the windows in batch `index`: (B,). A batch may span two epochs."""
        if (index + 1) * self.batch_size <= len(self._curriculum):
            return self._curriculum[index * self.batch_size : (index + 1) * self.batch_size]
        return self._shuffled(np.arange(index * self.batch_size, (index + 1) * self.batch_size))

    def _shuffled(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the windows at these positions of the shuffled epochs."""
        epochs, places = np.divmod(positions, self.size)
        numbers = np.empty_like(places)
        for epoch in range(int(epochs.min(initial=0)), int(epochs.max(initial=-1)) + 1):
            inside = epochs == epoch
            numbers[inside] = Shuffle(self.size, self.seed, epoch)(places[inside])
        return numbers


def bytes_per_token(recipe: Recipe, windows: Windows) -> float | None:
    """Average bytes of text per token; None if unknown. Raises UsageError."""
    given = recipe.data.bytes_per_token
    if not windows.bytewise:
        return given or None
    if given not in (0.0, 1.0):
        raise UsageError(f"data.bytes_per_token = {given} cannot be used: this data is text, where a token is a byte.")
    return 1.0


def tokenizer(recipe: Recipe, windows: Windows) -> str | None:
    """Name of the tokenizer; None if unknown."""
    return "bytes" if windows.bytewise else recipe.data.tokenizer or None


def easy_first(windows: Windows, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The windows sorted by their number of different tokens; ties remain in order."""
    distinct, places = np.unique(numbers, return_inverse=True)
    difficulty = np.empty(len(distinct), dtype=np.int64)
    for start in range(0, len(distinct), CHUNK_WINDOWS):
        sorted_tokens = np.sort(windows.take(distinct[start : start + CHUNK_WINDOWS]), axis=1)
        num_kinds = 1 + (np.diff(sorted_tokens, axis=1) != 0).sum(axis=1)
        difficulty[start : start + CHUNK_WINDOWS] = num_kinds - (sorted_tokens[:, 0] < 0)  # padding is no token
    return numbers[np.argsort(difficulty[places], kind="stable")]


def curriculum_steps(recipe: Recipe) -> int:
    """The length of the recipe's curriculum; 0 if there is none."""
    return (recipe.data.curriculum_steps or recipe.steps) if recipe.data.easy_first else 0


def open_batches(recipe: Recipe) -> tuple[Batches, HeldOut | None]:
    """The training batches, and the held-out windows (None if the recipe holds nothing back). Raises UsageError."""
    shards = open_shards(recipe.data.path)
    check_vocabulary(shards, recipe.model.vocab_size)
    parts = split(shards, recipe.data, recipe.model.context)
    windows = Windows(rows_of(parts.train, recipe.data), recipe.model.context, padded=recipe.data.rows != "packed")
    size = min(len(windows), recipe.data.max_windows or len(windows))
    if size < recipe.data.batch_size:
        raise UsageError(_too_short(sum(map(len, shards)), size, recipe))
    train = Batches(
        windows,
        size=size,
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
        vocab_size=recipe.model.vocab_size,
        curriculum_steps=curriculum_steps(recipe),
    )
    held_out = HeldOut(
        parts.held_out,
        recipe.model.context,
        num_windows=recipe.evaluate_windows,
        vocab_size=recipe.model.vocab_size,
        chosen=parts.chosen,
    )
    if recipe.data.held_out and not len(held_out):
        raise UsageError(
            f"data.held_out = {recipe.data.held_out} leaves no document of two tokens or more to evaluate: give other "
            "data with --data, or set data.held_out to 0."
        )
    return train, held_out if len(held_out) else None


def _too_short(num_tokens: int, num_windows: int, recipe: Recipe) -> str:
    return (
        f"The data is too short: {num_tokens} tokens, of which {num_windows} windows of {recipe.model.context} tokens "
        f"are left to train on, and a batch needs {recipe.data.batch_size}; give more text with --data, or lower "
        "data.batch_size, model.context or data.held_out."
    )
