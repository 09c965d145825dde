"""A rank's piece of a tensor, in the form in which torch.distributed.checkpoint plans what is written and read.

A tensor that is sharded over ranks (DTensor, as FSDP2 makes them) has a piece on each; any other one is its own piece,
the same on all ranks, and is written by one of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from lossguard.torch.sharding import is_sharded, local_part


class Piece:
    """`local`: what this rank has of a tensor of `shape`, beginning at `offsets`."""

    def __init__(self, local: Tensor, offsets: Sequence[int], shape: Sequence[int]) -> None:
        self.local = local
        self.chunk = ChunkStorageMetadata(torch.Size(offsets), local.shape)
        self.shape = torch.Size(shape)

    @classmethod
    def of(cls, tensor: Tensor) -> "Piece":
        """The piece of a tensor or DTensor; it shares its memory."""
        if not is_sharded(tensor):
            return cls(tensor.detach(), [0] * tensor.dim(), tensor.shape)
        (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]
        return cls(local_part(tensor), chunk.offsets, tensor.shape)

    def like(self, local: Tensor) -> "Piece":
        """The same place of the tensor, with other memory."""
        return Piece(local, self.chunk.offsets, self.shape)

    def size(self) -> torch.Size:
        """Of the whole tensor, as the planner asks."""
        return self.shape

    def __create_write_items__(self, name: str, value: Any) -> list[WriteItem]:
        if self.local.numel() == 0 and self.shape.numel() > 0:
            return []  # fewer rows than ranks
        data = TensorWriteData(self.chunk, TensorProperties.create_from_tensor(self.local), self.shape)
        return [WriteItem(MetadataIndex(name, self.chunk.offsets), WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [self.chunk]
