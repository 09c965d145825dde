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


def is_first_copy(tensor: Tensor) -> bool:
    """Whether this rank's part of a DTensor is the first one of its copies: those of replicated mesh dimensions."""
    coordinate = tensor.device_mesh.get_coordinate()  # type: ignore[attr-defined]
    if coordinate is None:
        return False
    placements = tensor.placements  # type: ignore[attr-defined]
    return not any(at for at, placement in zip(coordinate, placements, strict=True) if not placement.is_shard())


def with_local(tensor: Tensor, local: Tensor) -> Tensor:
    """A DTensor with the layout of `tensor` and the content `local`."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    mesh, placements = tensor.device_mesh, tensor.placements
    made: Tensor = DTensor.from_local(
        local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return made
