"""A rank's shard of a tensor, as torch.distributed.checkpoint plans its reading and writing.

A sharded tensor (DTensor, as FSDP2 makes them) has one shard on each rank. Any other tensor is a single shard, the same
on all ranks, which one of them writes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from lossguard.torch.dtensor import is_first_copy, is_sharded, local_part


class TensorShard:
    """`local`: this rank's part of a tensor of `shape`, which begins at `offsets`.

    `is_first_copy`: whether this rank is the one of those with the same part that writes it; None if each has it whole.
    """

    def __init__(
        self, local: Tensor, offsets: Sequence[int], shape: Sequence[int], is_first_copy: bool | None = None
    ) -> None:
        self.local = local
        self.is_first_copy = is_first_copy
        self.chunk = ChunkStorageMetadata(torch.Size(offsets), local.shape)
        self.shape = torch.Size(shape)

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorShard":
        """The local shard of a tensor or DTensor; it shares the tensor's memory."""
        if not is_sharded(tensor):
            return cls(tensor.detach(), [0] * tensor.dim(), tensor.shape)
        (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]
        return cls(local_part(tensor), chunk.offsets, tensor.shape, is_first_copy(tensor))

    def with_local(self, local: Tensor) -> "TensorShard":
        """The same part of the tensor, in other memory."""
        return TensorShard(local, self.chunk.offsets, self.shape, self.is_first_copy)

    def size(self) -> torch.Size:
        """The shape of the whole tensor; the planner calls it."""
        return self.shape

    def __create_write_items__(self, name: str, value: Any) -> list[WriteItem]:
        if self.local.numel() == 0 and self.shape.numel() > 0:
            return []  # fewer rows than ranks
        data = TensorWriteData(self.chunk, TensorProperties.create_from_tensor(self.local), self.shape)
        return [WriteItem(MetadataIndex(name, self.chunk.offsets), WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [self.chunk]
