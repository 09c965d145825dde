"""Which rank writes which tensors of a checkpoint.

torch.distributed.checkpoint gathers the plans of all ranks on rank 0, one item for each tensor of each rank, and sends
them back: millions of objects with thousands of ranks. Where all ranks have the same tensors, each one can work out its
own part, and the ranks only compare that the parts make a whole.
"""

import heapq
from collections.abc import Mapping
from hashlib import sha256

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.planner import WriteItem

from lossguard.torch import tree
from lossguard.torch.tensor_shard import TensorShard


def items_of_rank(shards: Mapping[str, TensorShard], group: dist.ProcessGroup) -> list[WriteItem] | None:
    """What this rank writes. None, on all ranks, where a rank cannot know it: they have different tensors."""
    if not _are_equal_on_all_ranks(shards, group):
        return None
    whole = {name: shard.local.nbytes for name, shard in shards.items() if shard.is_first_copy is None}
    writers = writers_of(whole, group.size())
    own = [
        writers[name] == group.rank() if shard.is_first_copy is None else shard.is_first_copy
        for name, shard in shards.items()
    ]
    num_written = [shard.local.numel() * is_own for shard, is_own in zip(shards.values(), own, strict=True)]
    total = torch.tensor(num_written, dtype=torch.int64, device="cpu")
    dist.all_reduce(total, group=group)
    if total.tolist() != [shard.shape.numel() for shard in shards.values()]:
        return None
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
    """Whether all ranks have tensors of the same names, types and shapes."""
    layout = [(name, each.local.dtype, each.shape, each.is_first_copy is None) for name, each in shards.items()]
    number = int.from_bytes(sha256(repr(layout).encode()).digest()[:7])
    highest, negated_lowest = tree.maxima(torch.tensor([number, -number], device="cpu"), group).tolist()
    return bool(highest == -negated_lowest)
