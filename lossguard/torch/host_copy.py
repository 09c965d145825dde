"""Copies of states in host memory, so that training continues while they are written."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lossguard.torch.dtensor import is_sharded

Path = tuple[str, ...]


class HostCopier:
    """Copies one state at a time. Reuses its buffers: fresh memory pages cost more than the copying."""

    def __init__(self) -> None:
        self._buffers: dict[Path, Tensor] = {}
        self._queued: set[torch.device] = set()

    def copy(self, state: Any) -> Any:
        """A copy of `state` with all tensors in host memory, valid until the next copy.

        A sharded tensor becomes the TensorShard of this rank.
        """
        copied = self._copy(state, ())
        while self._queued:
            torch.cuda.synchronize(self._queued.pop())
        return copied

    def _copy(self, value: Any, path: Path) -> Any:
        if is_sharded(value):
            from lossguard.torch.tensor_shard import TensorShard  # loads torch.distributed.checkpoint

            shard = TensorShard.of(value)
            return shard.with_local(self._copy_tensor(shard.local, path))
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach(), path)
        if isinstance(value, Mapping):
            copied: Any = copy.copy(value)  # keeps the type, and the version that a module's state carries
            for key, item in value.items():
                copied[key] = self._copy(item, (*path, str(key)))
            return copied
        if type(value) in (list, tuple):
            return type(value)(self._copy(item, (*path, str(place))) for place, item in enumerate(value))
        return copy.deepcopy(value)

    def _copy_tensor(self, value: Tensor, path: Path) -> Tensor:
        if value.layout is not torch.strided:
            return value.cpu().clone()
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._buffers[path] = buffer
        if value.is_cuda:  # CUDA only queues the copy; other devices (MPS, XPU) finish it first
            self._queued.add(value.device)
        return buffer.copy_(value, non_blocking=value.is_cuda)
