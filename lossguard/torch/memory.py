"""Checkpoints in host memory: cheap enough for every few steps, and gone with the process.

A ring of the newest states. Each slot keeps its buffers (page-locked for a GPU's tensors), because fresh memory pages
cost more than the copying. Of a sharded tensor, each rank keeps its own shard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lossguard.torch.host_copy import HostCopier
from lossguard.torch.stateful import Stateful


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
        """The states of `step`, in tensors of their own (an optimizer keeps those that it is given).

        They are sharded as those of the objects. Raises KeyError.
        """
        states = next((slot.states for slot in self._slots if slot.step == step), None)
        if states is None:
            raise KeyError(step)
        if not _holds_shards(states):
            return dict(HostCopier().copy(states))
        from lossguard.torch.sharded_checkpoint import with_layouts  # loads torch.distributed.checkpoint
        from lossguard.torch.state_tree import join_tensors, split_tensors

        parts = {name: split_tensors(name, state) for name, state in states.items()}
        shards = {path: shard for _, found in parts.values() for path, shard in found.items()}
        parts_of_rank = {path: shard.local.clone() for path, shard in shards.items()}
        tensors = with_layouts(parts_of_rank, {path: shard.shape for path, shard in shards.items()}, objects)
        return {name: join_tensors(name, skeleton, tensors) for name, (skeleton, _) in parts.items()}

    def discard_after(self, step: int) -> None:
        """Forget the states of later steps; the buffers stay."""
        for slot in self._slots:
            if slot.step is not None and slot.step > step:
                slot.step = None


def _holds_shards(value: Any) -> bool:
    """Whether there is a TensorShard in a copied state."""
    if isinstance(value, Mapping):
        return any(map(_holds_shards, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_shards, value))
    return hasattr(value, "with_local")
