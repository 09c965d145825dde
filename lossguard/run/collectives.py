"""Tensors over ranks: sharded ones, and communication whose cost per rank grows with the logarithm of their number."""

import math
import pickle
import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Scalar: TypeAlias = float | Tensor
"""A number, or a 0-dim tensor."""


def num_ranks() -> int:
    """Processes of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


# Sharded tensors: DTensor, as FSDP2 makes them. Its module is loaded only when one is used.


def is_sharded(value: Any) -> bool:
    """Return True if `value` is a DTensor."""
    return hasattr(value, "__create_chunk_list__") and hasattr(value, "to_local")


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, detached."""
    part: Tensor = tensor.detach().to_local() if is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]
    return part


# The part of a rank has a copy along each replicated dimension of its mesh, and one on each mesh beside it: FSDP2 over
# one dimension of the ranks, beside tensor parallelism over the other, knows only that one.


def is_first_copy(tensor: Tensor) -> bool:
    """Return True if this rank's part of a DTensor is the first copy; on meshes beside each other, that with rank 0."""
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    coordinate = mesh.get_coordinate()
    if coordinate is None or (mesh.size() < num_ranks() and 0 not in mesh.mesh):
        return False
    return not any(at for at, placement in zip(coordinate, placements, strict=True) if placement.is_replicate())


def num_copies(tensor: Tensor) -> int:
    """Number of ranks that hold this rank's part of a DTensor."""
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    along = math.prod(mesh.size(at) for at, placement in enumerate(placements) if placement.is_replicate())
    num: int = along * (num_ranks() // mesh.size())
    return num


def with_local(tensor: Tensor, local: Tensor) -> Tensor:
    """A DTensor with the layout of `tensor` and the content `local`."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    mesh, placements = tensor.device_mesh, tensor.placements
    made: Tensor = DTensor.from_local(
        local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return made


# Communication whose cost per rank grows with the logarithm of the number of ranks.
#
# gloo's all-gather passes the part of each rank around a ring: on every rank 2 x (ranks - 1) messages, one after
# another. Here a rank sends at most log2(ranks) messages of a few numbers, or one message with all that it has
# collected.

TAG, BACKGROUND_TAG = 0, 1
"""Between two ranks, messages of the same tag arrive in the order in which they were sent."""


def maxima(values: Tensor, group: dist.ProcessGroup, tag: int = TAG) -> Tensor:
    """The element-wise maxima of the `values` of all ranks, on each of them.

    In each round a rank sends what it knows twice as far as in the round before; a maximum may arrive twice.
    """
    rank, size = group.rank(), group.size()
    for distance in distances(size):
        received = torch.empty_like(values)
        sending = group.send([values], (rank + distance) % size, tag)
        group.recv([received], (rank - distance) % size, tag).wait()
        sending.wait()
        values = torch.maximum(values, received)
    return values


class MaximaInBackground:
    """Find the maxima in a thread while this rank does something else; one at a time in a group."""

    def __init__(self, values: Tensor, group: dist.ProcessGroup) -> None:
        self._values, self._group = values, group
        self._problem: Exception | None = None
        # A daemon: a process that leaves its loop must not wait for ranks that wait for it in theirs.
        self._thread = threading.Thread(target=self._run, name="lossguard-exchange", daemon=True)
        self._thread.start()

    def wait(self) -> Tensor:
        """The maxima. Raises RuntimeError when a rank has left."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._values

    def _run(self) -> None:
        try:
            self._values = maxima(self._values, self._group, BACKGROUND_TAG)
        except Exception as problem:
            self._problem = problem


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
