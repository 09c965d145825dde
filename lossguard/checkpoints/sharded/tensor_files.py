"""The tensors of a checkpoint that several ranks write, by torch.distributed.checkpoint, and where each of them is.

    *.distcp          the tensors that one rank has written
    tensors.json      all tensors, and the pieces of those that are not sharded, from rank 0
    tensors-0.json    the pieces of sharded tensors that this rank has written

A rank that restores the shards that it has written reads one such file, however many ranks there are.

The reader of torch unpickles the metadata and all values but tensors. Here the metadata is JSON and the files contain
only tensors, which torch reads with `weights_only`: no code in a checkpoint is ever executed.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.metadata import TensorStorageMetadata as TensorMetadata
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, WriteItem

from lossguard.checkpoints.files import checked_sparse_tensors, write_bytes
from lossguard.checkpoints.sharded.tensor_shard import TensorShard
from lossguard.vocabulary.errors import CheckpointError

INDEX = "tensors.json"
INDEX_OF_RANK = r"tensors-\d+\.json"
SUFFIX = ".distcp"
Content = dict[str, list[dict[str, Any]]]
"""Name of a tensor -> its pieces: what they are of it, and where."""


@dataclass(frozen=True, slots=True)
class ShardLocation:
    """The place of a stored shard; FileSystemReader requires these names."""

    relative_path: str
    offset: int
    length: int
    transform_descriptors: tuple[str, ...] = ()


def write_items(folder: Path, items: list[WriteItem], shards: Mapping[str, TensorShard], rank: int) -> Content:
    """Write what this rank writes, and its index. Returns the pieces of tensors that are not sharded."""
    writer = FileSystemWriter(folder)
    planner = _SavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(shards))
    writer.set_up_storage_writer(rank == 0)
    plans = [*(SavePlan([]) for _ in range(rank)), SavePlan(items)]
    plan = writer.prepare_global_plan(plans)[rank]  # it names the file after the place in the list
    places = {result.index: result.storage_data for result in writer.write_data(plan, planner).wait()}
    whole: Content = {}
    divided: Content = {}
    for item in items:
        assert item.tensor_data is not None
        name, chunk, place = item.index.fqn, item.tensor_data.chunk, places[item.index]
        content = whole if shards[name].is_first_copy is None else divided
        where = {"file": place.relative_path, "at": place.offset, "bytes": place.length}
        content[name] = [{"offsets": list(chunk.offsets), "shape": list(chunk.sizes), **where}]
    if divided:
        write_bytes(folder / index_of_rank(rank), json.dumps(divided).encode())
    return whole


def write_index(folder: Path, shards: Mapping[str, TensorShard], whole: Content) -> None:
    """Write the index of all ranks. `whole`: the pieces of tensors that are not sharded."""
    content: dict[str, dict[str, Any]] = {}
    for name, shard in shards.items():
        content[name] = {"dtype": str(shard.local.dtype).removeprefix("torch."), "shape": list(shard.shape)}
        if name in whole:
            content[name]["pieces"] = whole[name]
    write_bytes(folder / INDEX, json.dumps(content).encode())


def index_of_rank(rank: int) -> str:
    """The name of the file with the pieces of sharded tensors that this rank has written."""
    return f"tensors-{rank}.json"


class TensorFiles:
    """The tensors in a folder. Raises CheckpointError when the index names a file that is not in `known`."""

    def __init__(self, folder: Path, known: Collection[str], rank: int = 0) -> None:
        """`rank`: the one that reads; what it has written itself is looked at first."""
        self._folder, self._known = folder, known
        self._content: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        self._own = index_of_rank(rank)
        self._metadata = _from_json(self._content, known)

    @property
    def stored(self) -> dict[str, Tensor]:
        """All tensors by name, on the device `meta`: their shapes and types."""
        tensors: dict[str, Any] = self._metadata.state_dict_metadata
        return {
            name: torch.empty(each.size, dtype=each.properties.dtype, device="meta") for name, each in tensors.items()
        }

    def read(self, shards: Mapping[str, TensorShard], fetch: Callable[[Collection[str]], None]) -> None:
        """Fill `shards`, which may divide the tensors differently than when they were written. No communication.

        `fetch` is called with the names of the files before they are read.
        """
        plan, planner = self._complete_plan(shards, fetch)
        reader = FileSystemReader(self._folder)
        reader.set_up_storage_reader(self._metadata, True)
        fetch(sorted({self._metadata.storage_data[item.storage_index].relative_path for item in plan.items}))
        with checked_sparse_tensors():
            reader.read_data(plan, planner).wait()

    def _complete_plan(
        self, shards: Mapping[str, TensorShard], fetch: Callable[[Collection[str]], None]
    ) -> tuple[LoadPlan, DefaultLoadPlanner]:
        """A plan to read all `shards`, from as few indexes as possible."""
        indexes = sorted(name for name in self._known if re.fullmatch(INDEX_OF_RANK, name))
        own = [self._own] if self._own in indexes else []
        for names in (own, indexes):
            fetch(names)
            pieces = [json.loads((self._folder / name).read_bytes()) for name in names]
            self._metadata = _from_json(_joined(self._content, pieces), self._known)
            planner = _LoadPlanner(False, False)
            planner.set_up_planner(dict(shards), self._metadata, True)
            plan = planner.finish_plan(planner.create_local_plan())
            if sum(item.lengths.numel() for item in plan.items) == sum(each.local.numel() for each in shards.values()):
                return plan, planner
        raise CheckpointError("its tensors are incomplete")


def _joined(content: Mapping[str, Any], pieces: Sequence[Content]) -> dict[str, Any]:
    """The content of the index with the pieces that several ranks have written."""
    found: Content = {}
    for of_rank in pieces:
        for name, more in of_rank.items():
            found.setdefault(name, []).extend(more)
    return {name: {"pieces": found.get(name, []), **tensor} for name, tensor in content.items()}


class _SavePlanner(DefaultSavePlanner):
    def lookup_object(self, index: MetadataIndex) -> Tensor:
        shard: TensorShard = self.state_dict[index.fqn]
        return shard.local


class _LoadPlanner(DefaultLoadPlanner):
    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        """Unlike the inherited method, does not replace a TensorShard by None."""
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        shard: TensorShard = self.state_dict[index.fqn]
        return shard.local


def _from_json(content: Mapping[str, Any], known: Collection[str]) -> Metadata:
    tensors: dict[str, Any] = {}
    places = {}
    for name, tensor in content.items():
        chunks = []
        for number, shard in enumerate(tensor.get("pieces", ())):
            if shard["file"] not in known:
                raise CheckpointError(f"{INDEX} names the file {shard['file']!r}, which the manifest does not list")
            chunk = ChunkStorageMetadata(torch.Size(shard["offsets"]), torch.Size(shard["shape"]))
            chunks.append(chunk)
            places[MetadataIndex(name, chunk.offsets, number)] = ShardLocation(
                shard["file"], shard["at"], shard["bytes"]
            )
        dtype = getattr(torch, tensor["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"{INDEX} names the dtype {tensor['dtype']!r}, which torch does not have")
        tensors[name] = TensorMetadata(TensorProperties(dtype=dtype), torch.Size(tensor["shape"]), chunks)
    return Metadata(tensors, storage_data=places)
