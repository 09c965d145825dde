"""A rank's shard of a tensor, and which rank writes which tensors of a checkpoint."""

import heapq
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from lossguard.run import collectives
from lossguard.run.collectives import is_first_copy, is_sharded, local_part, num_copies
from lossguard.vocabulary.errors import CheckpointError

# Shards, as torch.distributed.checkpoint plans their reading and writing.
#
# A sharded tensor (DTensor, as FSDP2 makes them) has one shard on each rank. Any other tensor is a single shard, the
# same on all ranks, which one of them writes.


class TensorShard:
    """`local`: this rank's part of a tensor of `shape`, which begins at `offsets`.

    `is_first_copy`: whether this rank is the one of the `num_copies` with the same part that writes it; None if each
    has it whole.
    """

    def __init__(
        self,
        local: Tensor,
        offsets: Sequence[int],
        shape: Sequence[int],
        is_first_copy: bool | None = None,
        num_copies: int = 0,
    ) -> None:
        self.local = local
        self.is_first_copy, self.num_copies = is_first_copy, num_copies
        self.chunk = ChunkStorageMetadata(torch.Size(offsets), local.shape)
        self.shape = torch.Size(shape)

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorShard":
        """The local shard of a tensor or DTensor; it shares the tensor's memory."""
        if not is_sharded(tensor):
            return cls(tensor.detach(), [0] * tensor.dim(), tensor.shape)
        (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]
        return cls(local_part(tensor), chunk.offsets, tensor.shape, is_first_copy(tensor), num_copies(tensor))

    def with_local(self, local: Tensor) -> "TensorShard":
        """Return the same part of the tensor in other memory."""
        return TensorShard(local, self.chunk.offsets, self.shape, self.is_first_copy, self.num_copies)

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


# The plan of who writes what.
#
# torch.distributed.checkpoint gathers the plans of all ranks on rank 0, one item for each tensor of each rank, and
# sends them back: millions of objects with thousands of ranks. Here all ranks have the same tensors, so that each one
# can work out its own part, and the ranks only compare that the parts make a whole.


def items_of_rank(shards: Mapping[str, TensorShard], group: dist.ProcessGroup) -> list[WriteItem]:
    """What this rank writes. Raises CheckpointError on all ranks when their tensors differ or do not make a whole."""
    if not _are_equal_on_all_ranks(shards, group):
        raise CheckpointError(
            "the ranks have different tensors, as with pipeline parallelism: on all of them, names, types and shapes"
            " must be the same"
        )
    whole = {name: shard.local.nbytes for name, shard in shards.items() if shard.is_first_copy is None}
    writers = writers_of(whole, group.size())
    own = [
        writers[name] == group.rank() if shard.is_first_copy is None else shard.is_first_copy
        for name, shard in shards.items()
    ]
    num_written = [shard.local.numel() * is_own for shard, is_own in zip(shards.values(), own, strict=True)]
    total = torch.tensor(num_written, dtype=torch.int64, device="cpu")
    dist.all_reduce(total, group=group)
    for (name, shard), of_all_ranks in zip(shards.items(), total.tolist(), strict=True):
        if of_all_ranks != (wanted := shard.shape.numel()):
            raise CheckpointError(f"the parts of {name} on all ranks have {of_all_ranks} of its {wanted} values")
    names = [name for name, is_own in zip(shards, own, strict=True) if is_own]
    return [item for name in names for item in shards[name].__create_write_items__(name, shards[name])]


def writers_of(sizes: Mapping[str, int], num_ranks: int) -> dict[str, int]:
    """Tensor that every rank has -> the rank that writes it: always the one with the fewest bytes so far."""
    load = [(0, rank) for rank in range(num_ranks)]
    writers = {}
    for name, size in sizes.items():
        num_bytes, writers[name] = load[0]
        heapq.heapreplace(load, (num_bytes + max(size, 1), writers[name]))
    return writers


def _are_equal_on_all_ranks(shards: Mapping[str, TensorShard], group: dist.ProcessGroup) -> bool:
    """Return True if all ranks have tensors of the same names, types and shapes."""
    layout = [(name, each.local.dtype, each.shape, each.is_first_copy is None) for name, each in shards.items()]
    number = int.from_bytes(sha256(repr(layout).encode()).digest()[:7])
    highest, negated_lowest = collectives.maxima(torch.tensor([number, -number], device="cpu"), group).tolist()
    return bool(highest == -negated_lowest)
