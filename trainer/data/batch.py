"""A batch: the inputs of B sequences of T positions, and their targets."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
