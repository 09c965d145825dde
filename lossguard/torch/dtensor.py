"""Tensors that are sharded over ranks: DTensor, as FSDP2 makes them. Its module is loaded only when one is used."""

from typing import Any

from torch import Tensor


def is_sharded(value: Any) -> bool:
    """Whether `value` is a DTensor."""
    return hasattr(value, "__create_chunk_list__") and hasattr(value, "to_local")


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, detached."""
    part: Tensor = tensor.detach().to_local() if is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]
    return part


def with_local(tensor: Tensor, local: Tensor) -> Tensor:
    """A DTensor with the layout of `tensor` and the content `local`."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    mesh, placements = tensor.device_mesh, tensor.placements
    made: Tensor = DTensor.from_local(
        local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return made
