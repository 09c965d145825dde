"""A checkpoint that several ranks write and read together: states split into their tensors and everything else.

    <directory>/step-000000050/manifest.json     size and SHA-256 of each file
                               model.pt ...      everything but the tensors of each object's state, from rank 0
                               tensors*.json, *.distcp    the tensors of all objects (`tensor_files`)
                               rank-0.pt ...     of each rank: its random number generators, the guard's state, and
                                                 what it has otherwise than rank 0 (`own_states`)

Any number of ranks can read it, however their tensors are sharded.
"""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossguard.checkpoints.certificate import is_of_optimizer, paths_compared
from lossguard.checkpoints.files import fingerprint, read_state, write_state
from lossguard.checkpoints.sharded.tensor_files import (
    INDEX,
    INDEX_OF_RANK,
    SUFFIX,
    TensorFiles,
    index_of_rank,
    write_index,
    write_items,
)
from lossguard.checkpoints.sharded.tensor_shard import TensorShard, items_of_rank
from lossguard.checkpoints.state import Digest, Stateful, digest, leaves, rebuilt
from lossguard.checkpoints.state import Path as ValuePath
from lossguard.run.collectives import is_sharded, with_local
from lossguard.run.torch_ranks import TorchRanks

# States by name, split into their tensors and everything else, and joined again.
#
# The path of a tensor is written with dots here, as "optimizer.state.0.exp_avg".


def split_tensors(states: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, TensorShard]]:
    """The states with None in place of each tensor, and the tensors by path.

    Tensors of no dimension, such as an optimizer's step counts, stay where they are.
    """
    shards: dict[str, TensorShard] = {}

    def remove(path: ValuePath, value: Any) -> Any:
        if isinstance(value, TensorShard) or (isinstance(value, Tensor) and value.dim() > 0):
            shards[".".join(path)] = value if isinstance(value, TensorShard) else TensorShard.of(value)
            return None
        return value

    return rebuilt(states, remove), shards


def join_tensors(states: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo `split_tensors`."""
    joined: dict[str, Any] = rebuilt(states, lambda path, value: tensors.get(".".join(path), value))
    return joined


# What may differ between ranks: buffers of a module, such as the statistics of BatchNorm, and all of an object that is
# neither a module nor an optimizer, such as a sampler.

OWN = "own"


def own_states(objects: Mapping[str, Stateful], states: Mapping[str, Any], ranks: TorchRanks) -> dict[str, Any]:
    """This rank's values by path, for each object of which not all ranks have the same."""

    def values_and_digests() -> tuple[dict[str, Any], dict[str, Digest]]:
        own = {name: _own_values(objects[name], state) for name, state in states.items()}
        return own, {name: digest(values) for name, values in own.items()}

    own, digests = ranks.run_on_all(values_and_digests)
    of_rank_0 = ranks.broadcast(digests)
    differing = ranks.gather({name for name, found in digests.items() if found != of_rank_0.get(name)})
    return {name: own[name] for name in set().union(*differing) & own.keys()}


def _own_values(instance: Any, state: Any) -> dict[ValuePath, Any]:
    """Values by path; that of no path is the whole state."""
    is_shared = paths_compared(instance, state)
    values = {
        path: value
        for path, value in leaves(state)
        if path not in is_shared and not isinstance(value, TensorShard) and not is_sharded(value)
    }
    if isinstance(getattr(instance, "module", instance), nn.Module) or is_of_optimizer(state):
        return {path: value for path, value in values.items() if isinstance(value, Tensor)}
    return {(): state} if len(values) == sum(1 for _ in leaves(state)) else {}


def with_own(state: Any, values: Mapping[ValuePath, Any]) -> Any:
    """The state with a rank's own values."""
    return values[()] if () in values else rebuilt(state, lambda path, value: values.get(path, value))


Files = dict[str, dict[str, Any]]
"""File name -> fingerprint."""
Fetch = Callable[[Collection[str]], None]
"""Has files of these names in the folder, intact."""


def write_sharded(folder: Path, states: Mapping[str, Any], rank_state: Any, ranks: TorchRanks) -> Files:
    """Write the `states`, sharded over the ranks, and each rank's `rank_state`. Returns all files on rank 0.

    If it fails on one rank, it raises on all.
    """
    skeletons, shards = split_tensors(states)
    items = ranks.run_on_all(items_of_rank, shards, ranks.group)
    whole = ranks.joined_on_rank_0(ranks.run_on_all(write_items, folder, items, shards, ranks.rank))

    def write_rest() -> Files:
        contents = {f"rank-{ranks.rank}": rank_state}
        if ranks.rank == 0:
            write_index(folder, shards, whole)
            contents |= skeletons
        files = {f"{name}.pt": write_state(folder / f"{name}.pt", content) for name, content in contents.items()}
        indexes = [folder / index_of_rank(ranks.rank)] + [folder / INDEX] * (ranks.rank == 0)
        written = [*folder.glob(f"__{ranks.rank}_*{SUFFIX}"), *(path for path in indexes if path.exists())]
        return files | {path.name: fingerprint(path) for path in written}

    return ranks.joined_on_rank_0(ranks.run_on_all(write_rest))


def has_divided_index(files: Files) -> bool:
    """Return True if ranks have written indexes of their own."""
    return any(re.fullmatch(INDEX_OF_RANK, name) for name in files)


def read_rank_state(folder: Path, num_written: int, rank: int, fetch: Fetch) -> dict[str, Any]:
    """The state that this rank wrote. A rank that did not exist then gets rank 0's, without its generators."""
    existed = rank < num_written
    name = f"rank-{rank if existed else 0}.pt"
    fetch([name])
    state: dict[str, Any] = read_state(folder / name)
    return state if existed else {**state, "generators": None}


def read_states(folder: Path, files: Files, objects: Mapping[str, Stateful], fetch: Fetch, rank: int) -> dict[str, Any]:
    """The states of the objects, with tensors sharded as those that the objects have now.

    `fetch` is called with the names of files before they are read: only what this rank reads must lie in `folder`.
    """
    fetch([INDEX, *(f"{name}.pt" for name in objects)])
    content = TensorFiles(folder, files, rank)
    layouts = _layouts(objects)
    shards: dict[str, TensorShard] = {}
    for path, stored in content.stored.items():
        layout = _layout_of(path, stored.shape, layouts)
        place = TensorShard.of(torch.empty(stored.shape, dtype=stored.dtype) if layout is None else layout)
        shards[path] = place.with_local(torch.empty_like(place.local, dtype=stored.dtype))
    content.read(shards, fetch)
    tensors = {path: _with_layout(path, shard.local, shard.shape, layouts) for path, shard in shards.items()}
    return join_tensors({name: read_state(folder / f"{name}.pt") for name in objects}, tensors)


def shard_states(states: Mapping[str, Any], objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """States with whole tensors, sharded as the tensors of the objects are now."""
    layouts = _layouts(objects)

    def part(path: ValuePath, value: Any) -> Any:
        layout = _layout_of(".".join(path), value.shape, layouts) if isinstance(value, Tensor) else None
        if layout is None:
            return value
        chunk = TensorShard.of(layout).chunk
        local = value[tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))]
        return with_local(layout, local.to(layout.device, copy=True))

    sharded: dict[str, Any] = rebuilt(states, part)
    return sharded


def copy_shards(states: Mapping[str, Any], objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """Copies of states with shards of this rank, which become tensors that are sharded as those of the objects."""
    layouts = _layouts(objects)

    def copied(path: ValuePath, value: Any) -> Any:
        if not isinstance(value, Tensor | TensorShard):
            return value
        shard = value if isinstance(value, TensorShard) else TensorShard.of(value)
        return _with_layout(".".join(path), shard.local.clone(), shard.shape, layouts)

    copies: dict[str, Any] = rebuilt(states, copied)
    return copies


def _with_layout(path: str, local: Tensor, shape: torch.Size, layouts: Mapping[str, Tensor]) -> Tensor:
    layout = _layout_of(path, shape, layouts)
    return local if layout is None else with_local(layout, local.to(layout.device))


def _layouts(objects: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """The sharded tensors of the objects by path; an optimizer's state is sharded as its parameters."""
    layouts: dict[str, Any] = {}
    for name, instance in objects.items():
        layouts |= {".".join((name, *path)): value for path, value in leaves(instance.state_dict())}
        groups = getattr(instance, "param_groups", ())
        parameters = [parameter for group in groups for parameter in group["params"]]
        layouts |= {f"{name}.state.{number}": parameter for number, parameter in enumerate(parameters)}
    return {path: value for path, value in layouts.items() if isinstance(value, Tensor) and is_sharded(value)}


def _layout_of(path: str, shape: torch.Size, layouts: Mapping[str, Tensor]) -> Tensor | None:
    """The tensor that shows how the one at `path` is sharded; None if every rank has it whole."""
    layout = layouts.get(path, layouts.get(path.rpartition(".")[0]))
    return layout if layout is not None and layout.shape == shape else None
