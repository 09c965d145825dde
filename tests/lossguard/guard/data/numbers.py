"""The smallest dataset that notes what was loaded."""

from typing import Any

import torch
from torch.utils.data import Dataset


class Numbers(Dataset[Any]):
    """Sample i is i."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.loaded: list[Any] = []

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: Any) -> Any:
        self.loaded.append(index)
        return torch.as_tensor(index)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)
