"""Batches whose content is a pure function of (seed, batch index): skipping is a jump, replaying is exact.

Shapes: B sequences, T positions.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.config import Recipe
from trainer.data.shuffle import Shuffle
from trainer.data.tokens import Shard, check_ids, check_vocabulary, open_shards
from trainer.errors import UsageError

CHUNK_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Teacher forcing: the targets are the inputs shifted by one."""

    index: int
    inputs_BT: Tensor  # int64
    targets_BT: Tensor  # int64

    def to(self, device: torch.device) -> "Batch":
        inputs_BT = self.inputs_BT.to(device, non_blocking=True)
        return Batch(self.index, inputs_BT, self.targets_BT.to(device, non_blocking=True))


class Windows:
    """The shards cut into windows of T + 1 tokens; the inputs of successive windows are adjacent."""

    def __init__(self, shards: list[Shard], context: int) -> None:
        self.shards = shards
        self.context = context
        counts = [max(0, (len(shard) - 1) // context) for shard in shards]
        self._ends = np.array(list(accumulate(counts)), dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def bytewise(self) -> bool:
        """Whether a token is a byte of text."""
        return all(shard.dtype == np.uint8 for shard in self.shards)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The windows with these numbers: (B, T + 1)."""
        return np.stack([self._window(int(number)) for number in numbers]).astype(np.int64)

    def _window(self, number: int) -> Shard:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        first = number - (int(self._ends[shard - 1]) if shard else 0)
        return self.shards[shard][first * self.context : (first + 1) * self.context + 1]


class Batches:
    """Endless data: `batches[i]` is batch i of the data order. Every epoch has its own shuffle."""

    def __init__(
        self,
        windows: Windows,
        *,
        first: int = 0,
        size: int,
        batch_size: int,
        seed: int,
        vocab_size: int,
        easy_first: bool = False,
    ) -> None:
        """Batches of the windows `first` to `first + size`."""
        self.windows = windows
        self.first = first
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.vocab_size = vocab_size
        self._easy_first = _easy_first(windows, first, size) if easy_first else None

    def __getitem__(self, index: int) -> Batch:
        if index < 0:
            raise IndexError(f"batch indices are absolute and begin at 0, not {index}")
        tokens = self.windows.take(self.window_numbers(index))
        check_ids(tokens, self.vocab_size)
        tokens_BT = torch.from_numpy(tokens)
        return Batch(index, tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous())

    def window_numbers(self, index: int) -> NDArray[np.int64]:
        """The numbers of the windows in batch `index`: (B,). A batch may span two epochs."""
        positions = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.size)
        if self._easy_first is not None:
            return self._easy_first[places] + self.first
        numbers = np.empty_like(places)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            numbers[inside] = Shuffle(self.size, self.seed, epoch)(places[inside])
        return numbers + self.first


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


def _easy_first(windows: Windows, first: int, size: int) -> NDArray[np.int64]:
    """The order of the windows by their number of different tokens; ties in the order of the data."""
    difficulty = np.empty(size, dtype=np.int64)
    for start in range(0, size, CHUNK_WINDOWS):
        end = min(start + CHUNK_WINDOWS, size)
        sorted_tokens = np.sort(windows.take(np.arange(first + start, first + end)), axis=1)
        difficulty[start:end] = 1 + (np.diff(sorted_tokens, axis=1) != 0).sum(axis=1)
    return np.argsort(difficulty, kind="stable")


def open_batches(recipe: Recipe) -> tuple[Batches, Batches | None]:
    """The training batches, and the held-out ones (None if the recipe holds nothing back). Raises UsageError."""
    shards = open_shards(recipe.data.path)
    check_vocabulary(shards, recipe.model.vocab_size)
    windows = Windows(shards, recipe.model.context)
    num_held_out = _held_out(len(windows), recipe)
    num_trained = len(windows) - num_held_out
    batch_size = recipe.data.batch_size
    if num_trained < batch_size:
        raise UsageError(_too_short(sum(map(len, shards)), recipe))
    settings: dict[str, Any] = {"batch_size": batch_size, "seed": recipe.seed, "vocab_size": recipe.model.vocab_size}
    train = Batches(windows, size=num_trained, easy_first=recipe.data.easy_first, **settings)
    held_out = Batches(windows, first=num_trained, size=num_held_out, **settings) if num_held_out else None
    return train, held_out


def _held_out(num_windows: int, recipe: Recipe) -> int:
    """The number of held-out windows: at least one batch, unless nothing is held out."""
    if recipe.data.held_out == 0.0:
        return 0
    return max(recipe.data.batch_size, round(num_windows * recipe.data.held_out))


def _too_short(num_tokens: int, recipe: Recipe) -> str:
    parts = 2 if recipe.data.held_out else 1
    needed = parts * recipe.tokens_per_step + 1
    return (
        f"The data is too short: {num_tokens} tokens, and a batch of {recipe.data.batch_size} x "
        f"{recipe.model.context} tokens{' beside the held-out one' if parts == 2 else ''} needs {needed}; "
        "give more text with --data, or lower data.batch_size or model.context."
    )
