"""Checkpoints in host memory, and the copies of states that they and background writes are made of."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lossguard.checkpoints.state import PLAIN, Path, Stateful, leaves, rebuilt
from lossguard.run.collectives import is_sharded

# Copies of states in host memory, so that training continues while they are written.


class HostCopier:
    """Copies one state at a time. Reuses its buffers: fresh memory pages cost more than the copying."""

    def __init__(self) -> None:
        self._buffers: dict[Path, Tensor] = {}
        self._queued: set[torch.device] = set()

    def copy(self, state: Any) -> Any:
        """A copy of `state` with all tensors in host memory, valid until the next copy.

        A sharded tensor becomes the TensorShard of this rank.
        """
        copied = rebuilt(state, self._copy)
        while self._queued:
            torch.cuda.synchronize(self._queued.pop())
        return copied

    def _copy(self, path: Path, value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if is_sharded(value):
            from lossguard.checkpoints.sharded.tensor_shard import TensorShard  # loads torch.distributed.checkpoint

            shard = TensorShard.of(value)
            return shard.with_local(self._copy_tensor(shard.local, path))
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach(), path)
        return copy.deepcopy(value)

    def _copy_tensor(self, value: Tensor, path: Path) -> Tensor:
        if value.layout is not torch.strided:
            return value.cpu().clone()
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=value.is_cuda)
            self._buffers[path] = buffer
        if value.is_cuda:  # CUDA only queues the copy; other devices (MPS, XPU) finish it first
            self._queued.add(value.device)
        return buffer.copy_(value, non_blocking=value.is_cuda)


def restorable(states: Mapping[str, Any], objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """Copied states in tensors of their own (an optimizer keeps those that it is given), sharded as the objects'."""
    if not any(hasattr(value, "with_local") for _, value in leaves(states)):  # no TensorShard
        return dict(HostCopier().copy(states))
    from lossguard.checkpoints.sharded.checkpoint import copy_shards  # loads torch.distributed.checkpoint

    return copy_shards(states, objects)


# Checkpoints in host memory: cheap enough for every few steps, and gone with the process.
#
# A ring of the newest states. Each slot keeps its buffers (page-locked for a GPU's tensors), because fresh memory pages
# cost more than the copying. Of a sharded tensor, each rank keeps its own shard.


@dataclass(slots=True)
class _Slot:
    step: int | None = None
    """None: empty."""
    states: dict[str, Any] = field(default_factory=dict)
    copier: HostCopier = field(default_factory=HostCopier)


class MemoryCheckpoints:
    """The newest `size` states of one run."""

    def __init__(self, size: int) -> None:
        self._slots = [_Slot() for _ in range(size)]

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(slot.step for slot in self._slots if slot.step is not None)

    def save(self, step: int, states: Mapping[str, Any]) -> None:
        """Copy the states, in place of those of the same step or else of the oldest."""
        slot = min(self._slots, key=lambda each: (each.step != step, each.step is not None, each.step))
        slot.step = None  # until the copy is complete
        slot.states = slot.copier.copy(dict(states))
        slot.step = step

    def load(self, step: int, objects: Mapping[str, Stateful]) -> dict[str, Any]:
        """The states of `step`, as `restorable` returns them."""
        return restorable(next(slot.states for slot in self._slots if slot.step == step), objects)

    def discard_after(self, step: int) -> None:
        """Forget the states of later steps; the buffers stay."""
        for slot in self._slots:
            if slot.step is not None and slot.step > step:
                slot.step = None
