"""Batches whose content is a pure function of (seed, batch index): skipping is a jump, replaying is exact.

Shapes: B sequences, T positions.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.config import Recipe
from trainer.data.held_out import HeldOut
from trainer.data.shuffle import Shuffle
from trainer.data.split import Split, rows_of, split
from trainer.data.tokenizer import BytePairs, Bytes, Ids, Tokenizer, byte_pair_size, learn_byte_pairs
from trainer.data.tokens import Shard, check_ids, check_vocabulary, is_text, open_shards
from trainer.data.windows import Batch, Windows
from trainer.errors import UsageError

CHUNK_WINDOWS = 4096


class TokenBatches:
    """Endless data: `batches[i]` is batch i of the data order. Every epoch has its own shuffle."""

    def __init__(
        self,
        windows: Windows,
        *,
        size: int,
        batch_size: int,
        seed: int,
        vocab_size: int,
        tokenizer: Tokenizer,
        curriculum_steps: int = 0,
    ) -> None:
        """Batches of the first `size` windows, of which the first `curriculum_steps` are a curriculum."""
        self.tokenizer = tokenizer
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


def bytes_per_token(recipe: Recipe, batches: TokenBatches, held_out: HeldOut | None) -> float | None:
    """Average bytes of text per token (of byte pairs: per evaluated target); None if unknown. Raises UsageError."""
    given, tokenizer = recipe.data.bytes_per_token, batches.tokenizer
    if isinstance(tokenizer, Ids):
        return given or None
    if given not in (0.0, 1.0):
        raise UsageError(f"data.bytes_per_token = {given} cannot be used: the bytes of this data's tokens are known.")
    if not isinstance(tokenizer, BytePairs):
        return 1.0
    evaluated = batches.windows.shards[0] if held_out is None else held_out.windows.take(held_out.numbers)[:, 1:]
    return tokenizer.bytes_per_token(np.asarray(evaluated, dtype=np.int64))


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


def open_batches(recipe: Recipe) -> tuple[TokenBatches, HeldOut | None]:
    """The training batches, and the held-out windows (None if the recipe holds nothing back). Raises UsageError."""
    shards = open_shards(recipe.data.path)
    parts = split(shards, recipe.data, recipe.model.context)
    rows, held_out_shards, tokenizer = _in_tokens(recipe, shards, parts)
    windows = Windows(rows, recipe.model.context, padded=recipe.data.rows != "packed")
    size = min(len(windows), recipe.data.max_windows or len(windows))
    if size < recipe.data.batch_size:
        raise UsageError(
            f"The data is too short: {sum(map(len, shards))} tokens, of which {size} windows of {recipe.model.context} "
            f"tokens are left to train on, and a batch needs {recipe.data.batch_size}; give more text with --data, or "
            "lower data.batch_size, model.context or data.held_out."
        )
    train = TokenBatches(
        windows,
        size=size,
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
        vocab_size=recipe.model.vocab_size,
        curriculum_steps=curriculum_steps(recipe),
        tokenizer=tokenizer,
    )
    held_out = HeldOut(
        held_out_shards,
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


def _in_tokens(recipe: Recipe, shards: list[Shard], parts: Split) -> tuple[list[Shard], list[Shard], Tokenizer]:
    """The rows of the training data and the held-out documents, in tokens. Raises UsageError."""
    size = byte_pair_size(recipe.data.tokenizer)
    if size is None:
        check_vocabulary(shards, recipe.model.vocab_size)
        tokenizer: Tokenizer = Bytes() if is_text(shards) else Ids(recipe.data.tokenizer or None)
        return rows_of(parts.train, recipe.data), parts.held_out, tokenizer
    if not is_text(shards):
        raise UsageError(f"data.tokenizer = bpe:{size} cannot be used: this data has tokens already.")
    if recipe.model.vocab_size != size:
        raise UsageError(f"data.tokenizer = bpe:{size} needs model.vocab_size = {size}: --tokenizer sets both.")
    pairs = learn_byte_pairs(parts.train, size)
    if recipe.data.rows == "packed":
        rows: list[Shard] = [np.concatenate(pairs.encode_all(parts.train))]
    else:
        rows = pairs.encode_all(rows_of(parts.train, recipe.data))
    return rows, pairs.encode_all(parts.held_out), pairs
