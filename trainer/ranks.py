"""Several processes that train one run together.

    torchrun --nproc-per-node 2 -m trainer run --recipe tiny [--set parallel=fsdp]

Each takes its part of every batch, so that 1, 2 and 4 processes see the same data in the same order.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from trainer.data.batches import Batch
from trainer.errors import UserMistake


@contextmanager
def launched(device: str) -> Iterator[None]:
    """torch.distributed, where torchrun has started several processes. `device`: the recipe's."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_rank() >= torch.cuda.device_count():
            raise UserMistake(f"This machine has {torch.cuda.device_count()} GPU(s): start one process for each.")
        torch.cuda.set_device(local_rank())
    _initialise("nccl" if on_gpu else "gloo")
    try:
        yield
    except BaseException:
        if not on_gpu:  # gloo waits for nobody; NCCL would, and the others may never come to this
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _initialise(backend: str) -> None:
    """As `init_process_group(backend)`, but fit to be started again by `torchrun --max-restarts`.

    torch 2.13 gives a new attempt the store of the one before, whose addresses gloo then tries in vain.
    """
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"trainer/{attempt}", store)  # type: ignore[attr-defined]  # its own list lacks it
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def position() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def check_batch_size(batch_size: int) -> None:
    """Raises UserMistake for one that cannot be dealt out evenly."""
    _, size = position()
    if batch_size % size:
        raise UserMistake(f"data.batch_size = {batch_size} cannot be used: it must be a multiple of {size} processes.")


def part_of(batch: Batch) -> Batch:
    """The rows of a batch that this process trains on."""
    rank, size = position()
    num_rows = len(batch.inputs_BT)
    rows = slice(rank * num_rows // size, (rank + 1) * num_rows // size)
    return Batch(batch.index, batch.inputs_BT[rows], batch.targets_BT[rows])


def spread(model: nn.Module, kind: str) -> nn.Module:
    """What to call in place of `model`; with FSDP its parameters are sharded in place."""
    _, size = position()
    if size == 1:
        return model
    if kind == "ddp":
        return DistributedDataParallel(model)
    for block in model.get_submodule("blocks").children():
        fully_shard(block)
    fully_shard(model)
    return model


def own_part(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part
