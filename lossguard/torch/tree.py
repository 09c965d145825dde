"""Communication whose cost per rank grows with the logarithm of the number of ranks.

gloo's all-gather passes the part of each rank around a ring: on every rank 2 x (ranks - 1) messages, one after another.
Here a rank sends at most log2(ranks) messages of a few numbers, or one message with all that it has collected.
"""

import pickle
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TAG = 0
"""Of all messages here: between two ranks they arrive in the order in which they were sent."""


def maxima(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The element-wise maxima of the `values` of all ranks, on each of them.

    In each round a rank sends what it knows twice as far as in the round before; a maximum may arrive twice.
    """
    rank, size = group.rank(), group.size()
    for distance in distances(size):
        received = torch.empty_like(values)
        sending = group.send([values], (rank + distance) % size, TAG)
        group.recv([received], (rank - distance) % size, TAG).wait()
        sending.wait()
        values = torch.maximum(values, received)
    return values


def gather_on_rank_0(value: Any, group: dist.ProcessGroup) -> list[Any]:
    """On rank 0 the `value` of every rank, in the order of the ranks; an empty list on the others.

    `value` is pickled. A rank passes on what it has collected, once.
    """
    rank, size = group.rank(), group.size()
    collected = [pickle.dumps(value)]  # of the ranks from this one on
    for distance in distances(size):
        if rank & distance:
            _send(collected, rank - distance, group)
            return []
        if rank + distance < size:
            collected += _receive(rank + distance, group)
    return [pickle.loads(each) for each in collected]


def distances(size: int) -> Iterator[int]:
    """1, 2, 4, .. below the number of ranks: how far a rank sends in each round."""
    distance = 1
    while distance < size:
        yield distance
        distance *= 2


def _send(content: list[bytes], rank: int, group: dist.ProcessGroup) -> None:
    payload = torch.frombuffer(bytearray(pickle.dumps(content)), dtype=torch.uint8)
    group.send([torch.tensor([payload.numel()], device="cpu")], rank, TAG).wait()
    group.send([payload], rank, TAG).wait()


def _receive(rank: int, group: dist.ProcessGroup) -> list[bytes]:
    size = torch.empty(1, dtype=torch.int64, device="cpu")
    group.recv([size], rank, TAG).wait()
    payload = bytearray(int(size))
    group.recv([torch.frombuffer(payload, dtype=torch.uint8)], rank, TAG).wait()
    content: list[bytes] = pickle.loads(payload)
    return content
