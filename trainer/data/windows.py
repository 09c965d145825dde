"""Shards cut into windows of T + 1 tokens, and batches of windows: T inputs, and as targets the inputs shifted by one.

Shapes: B sequences, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.tokens import Shard

PADDING = -100
"""Behind the end of a shard; as a target it is not counted (torch's `ignore_index`)."""


class Windows:
    """The inputs of successive windows are adjacent. No window crosses from one shard into the next."""

    def __init__(self, shards: Sequence[Shard], context: int, *, padded: bool = False) -> None:
        """`padded`: the rest of a shard is a window, too, with PADDING behind it; otherwise it is left out."""
        self.shards = shards
        self.context = context
        extra = context - 1 if padded else 0
        self.counts = [max(0, (len(shard) - 1 + extra) // context) for shard in shards]
        self._ends = np.array([*accumulate(self.counts)] or [0], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def padding(self) -> float:
        """Share of the targets of all windows that are PADDING."""
        num_targets = sum(
            min(max(0, len(shard) - 1), count * self.context)
            for shard, count in zip(self.shards, self.counts, strict=True)
        )
        return 1 - num_targets / (len(self) * self.context) if len(self) else 0.0

    def shards_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions, in the list of shards, of the shards that contain these windows."""
        return np.searchsorted(self._ends, numbers, side="right")

    def place(self, number: int) -> tuple[int, int]:
        """(position of the shard, index of the first token in it) of a window."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, (number - (int(self._ends[shard - 1]) if shard else 0)) * self.context

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The windows with these numbers: (B, T + 1)."""
        tokens = np.full((len(numbers), self.context + 1), PADDING, dtype=np.int64)
        for row, number in zip(tokens, numbers, strict=True):
            shard, begin = self.place(int(number))
            part = self.shards[shard][begin : begin + self.context + 1]
            row[: len(part)] = part
        return tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Teacher forcing: the targets are the inputs shifted by one."""

    index: int
    inputs_BT: Tensor  # int64
    targets_BT: Tensor  # int64, PADDING where a sequence has ended

    @classmethod
    def of_windows(cls, index: int, windows: NDArray[np.int64]) -> "Batch":
        """Return the batch of windows (B, T + 1). Inputs that are PADDING become 0; no loss counts what follows."""
        tokens_BT = torch.from_numpy(windows)
        return cls(index, tokens_BT[:, :-1].clamp(min=0), tokens_BT[:, 1:].contiguous())

    def to(self, device: torch.device) -> "Batch":
        inputs_BT = self.inputs_BT.to(device, non_blocking=True)
        return Batch(self.index, inputs_BT, self.targets_BT.to(device, non_blocking=True))
