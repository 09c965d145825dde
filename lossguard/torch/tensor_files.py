"""The tensors of a checkpoint that several ranks write, by torch.distributed.checkpoint: `*.distcp` and `tensors.json`.

The reader of torch unpickles the metadata and all values but tensors. Here the metadata is JSON and the files contain
only tensors, which torch reads with `weights_only`: no code in a checkpoint is ever executed.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.metadata import TensorStorageMetadata as TensorMetadata
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from lossguard.errors import CheckpointError
from lossguard.torch.files import checked_sparse_tensors, write_bytes
from lossguard.torch.tensor_shard import TensorShard

INDEX = "tensors.json"
SUFFIX = ".distcp"


@dataclass(frozen=True, slots=True)
class ShardLocation:
    """Where a shard is stored; FileSystemReader requires these names."""

    relative_path: str
    offset: int
    length: int
    transform_descriptors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Shape and type of a tensor in a checkpoint."""

    shape: torch.Size
    dtype: torch.dtype


def write_tensors(folder: Path, shards: Mapping[str, TensorShard], group: dist.ProcessGroup) -> None:
    """Write the tensors of all ranks into `folder`, which they share. If it fails on one, all raise CheckpointError."""
    planner = _SavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        save(dict(shards), storage_writer=_Writer(folder), planner=planner, process_group=group)
    except CheckpointException as problem:  # a BaseException, not an Exception
        rank, (cause, _) = next(iter(problem.failures.items()))
        raise CheckpointError(f"rank {rank} could not write: {type(cause).__name__}: {cause}") from None


class TensorFiles:
    """The tensors in a folder. Raises CheckpointError when the index names a file that is not in `known`."""

    def __init__(self, folder: Path, known: Collection[str]) -> None:
        self._folder = folder
        self._metadata = _from_json(json.loads((folder / INDEX).read_bytes()), known)

    @property
    def stored(self) -> dict[str, StoredTensor]:
        """All tensors, by name."""
        tensors: dict[str, Any] = self._metadata.state_dict_metadata
        return {name: StoredTensor(each.size, each.properties.dtype) for name, each in tensors.items()}

    def read(self, shards: Mapping[str, TensorShard], need: Callable[[Collection[str]], None]) -> None:
        """Fill `shards`, which may divide the tensors differently than when they were written. No communication.

        `need` is called with the names of the files before they are read.
        """
        reader, planner = FileSystemReader(self._folder), _LoadPlanner(False, False)
        reader.set_up_storage_reader(self._metadata, True)
        planner.set_up_planner(dict(shards), self._metadata, True)
        plan = planner.finish_plan(planner.create_local_plan())
        if sum(item.lengths.numel() for item in plan.items) != sum(shard.local.numel() for shard in shards.values()):
            raise CheckpointError("its tensors are incomplete")
        need(sorted({self._metadata.storage_data[item.storage_index].relative_path for item in plan.items}))
        with checked_sparse_tensors():
            reader.read_data(plan, planner).wait()


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


class _Writer(FileSystemWriter):
    """Writes the metadata as JSON in place of a pickle."""

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        places = {result.index: result.storage_data for results_of_rank in results for result in results_of_rank}
        write_bytes(Path(self.path) / INDEX, json.dumps(_to_json(metadata, places)).encode())


def _to_json(metadata: Metadata, places: Mapping[MetadataIndex, Any]) -> dict[str, Any]:
    content = {}
    for name, tensor in metadata.state_dict_metadata.items():
        assert isinstance(tensor, TensorMetadata)
        chunks = []
        for chunk in tensor.chunks:
            place = places[MetadataIndex(name, chunk.offsets)]
            where = {"file": place.relative_path, "at": place.offset, "bytes": place.length}
            chunks.append({"offsets": list(chunk.offsets), "shape": list(chunk.sizes), **where})
        dtype = str(tensor.properties.dtype).removeprefix("torch.")
        content[name] = {"dtype": dtype, "shape": list(tensor.size), "pieces": chunks}
    return content


def _from_json(content: Mapping[str, Any], known: Collection[str]) -> Metadata:
    tensors: dict[str, Any] = {}
    places = {}
    for name, tensor in content.items():
        chunks = []
        for number, shard in enumerate(tensor["pieces"]):
            if shard["file"] not in known:
                raise CheckpointError(f"{INDEX} names the file {shard['file']!r}, which the manifest does not list")
            chunk = ChunkStorageMetadata(torch.Size(shard["offsets"]), torch.Size(shard["shape"]))
            chunks.append(chunk)
            places[MetadataIndex(name, chunk.offsets, number)] = ShardLocation(
                shard["file"], shard["at"], shard["bytes"]
            )
        properties = TensorProperties(dtype=_dtype(tensor["dtype"]))
        tensors[name] = TensorMetadata(properties, torch.Size(tensor["shape"]), chunks)
    return Metadata(tensors, storage_data=places)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"{INDEX} names the dtype {name!r}, which torch does not have")
    return dtype
