"""A checkpoint that several ranks write and read together.

    <directory>/step-000000050/manifest.json     size and SHA-256 of each file
                               model.pt ...      what in each object's state is no tensor, from rank 0
                               tensors.json, *.distcp    the tensors of all of them (`tensor_files`)
                               rank-0.pt ...     random number generators of each rank, and the guard's state

Any number of ranks can read it, however their tensors are sharded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossguard.torch.files import fingerprint, write_state
from lossguard.torch.ranks import TorchRanks
from lossguard.torch.shard import Piece
from lossguard.torch.sharding import is_sharded, with_local
from lossguard.torch.state_tree import put_together, take_apart, tensors_in
from lossguard.torch.stateful import Stateful
from lossguard.torch.tensor_files import INDEX, SUFFIX, TensorFiles, write_tensors

Files = dict[str, dict[str, Any]]
"""Name of a file -> its fingerprint."""


def write_together(folder: Path, states: Mapping[str, Any], own: Any, ranks: TorchRanks) -> Files:
    """Write the `states` of all ranks, and what each has of its `own`. Returns all files. Raises on all ranks alike."""
    skeletons: dict[str, Any] = {}
    pieces: dict[str, Piece] = {}
    for name, state in states.items():
        skeletons[name], found = take_apart(name, state)
        pieces |= found
    ranks.together(write_tensors, folder, pieces, ranks.group)
    files = ranks.together(_write_own, folder, skeletons if ranks.rank == 0 else {}, own, ranks.rank)
    return {name: written for of_rank in ranks.gather(files) for name, written in of_rank.items()}


def _write_own(folder: Path, skeletons: Mapping[str, Any], own: Any, rank: int) -> Files:
    files = {f"{name}.pt": write_state(folder / f"{name}.pt", skeleton) for name, skeleton in skeletons.items()}
    files[f"rank-{rank}.pt"] = write_state(folder / f"rank-{rank}.pt", own)
    written = [path for path in folder.glob(f"__{rank}_*{SUFFIX}")] + [folder / INDEX] * (rank == 0)
    return files | {path.name: fingerprint(path) for path in written}


def read_own(folder: Path, num_written: int, rank: int) -> dict[str, Any]:
    """What this rank wrote of its own; a rank that was not there then has all but the random number generators."""
    known = rank < num_written
    own: dict[str, Any] = torch.load(folder / f"rank-{rank if known else 0}.pt", "cpu", weights_only=True)
    return own if known else {**own, "generators": None}


def read_states(folder: Path, files: Files, objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """The states of the objects, their tensors sharded as those that the objects have now."""
    content = TensorFiles(folder, files)
    layouts = _layouts(objects)
    pieces: dict[str, Piece] = {}
    for path, stored in content.stored.items():
        like = _like(path, stored.shape, layouts)
        place = Piece.of(torch.empty(stored.shape, dtype=stored.dtype) if like is None else like)
        pieces[path] = place.like(torch.empty_like(place.local, dtype=stored.dtype))
    content.read(pieces)
    tensors = {path: _laid_out(path, piece.local, piece.shape, layouts) for path, piece in pieces.items()}
    return {
        name: put_together(name, torch.load(folder / f"{name}.pt", "cpu", weights_only=True), tensors)
        for name in objects
    }


def spread(states: Mapping[str, Any], objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """States whose tensors are whole, with this rank's part of those that the objects have sharded."""
    layouts = _layouts(objects)
    spread_out = {}
    for name, state in states.items():
        tensors = {path: _part(path, tensor, layouts) for path, tensor in tensors_in(name, state).items()}
        spread_out[name] = put_together(name, state, tensors)
    return spread_out


def _part(path: str, tensor: Tensor, layouts: Mapping[str, Tensor]) -> Tensor:
    like = _like(path, tensor.shape, layouts)
    if like is None:
        return tensor
    chunk = Piece.of(like).chunk
    part = tensor[tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))]
    return with_local(like, part.to(like.device, copy=True))


def _laid_out(path: str, local: Tensor, shape: torch.Size, layouts: Mapping[str, Tensor]) -> Tensor:
    like = _like(path, shape, layouts)
    return local if like is None else with_local(like, local)


def _layouts(objects: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """The sharded tensors of the objects by path; a parameter stands for all that an optimizer keeps about it."""
    layouts: dict[str, Tensor] = {}
    for name, instance in objects.items():
        layouts |= tensors_in(name, instance.state_dict())
        groups = getattr(instance, "param_groups", ())
        parameters = [parameter for group in groups for parameter in group["params"]]
        layouts |= {f"{name}.state.{number}": parameter for number, parameter in enumerate(parameters)}
    return {path: tensor for path, tensor in layouts.items() if is_sharded(tensor)}


def _like(path: str, shape: torch.Size, layouts: Mapping[str, Tensor]) -> Tensor | None:
    """The tensor that shows how that of `path` is sharded; None for one that every rank has whole."""
    like = layouts.get(path, layouts.get(path.rpartition(".")[0]))
    return like if like is not None and like.shape == shape else None
