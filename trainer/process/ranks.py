"""Several processes that train one run together, with DDP or FSDP2.

    torchrun --nproc-per-node 2 -m trainer run --recipe tiny [--set parallel=fsdp]

Each trains on its part of every batch, so that 1, 2 and 4 processes see the same data in the same order.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from trainer.data.windows import Batch
from trainer.errors import UsageError


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Initialise torch.distributed if torchrun has started several processes. `device`: the recipe's."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_rank() >= torch.cuda.device_count():
            raise UsageError(f"This machine has {torch.cuda.device_count()} GPU(s): start one process for each.")
        torch.cuda.set_device(local_rank())
    # torch 2.13 gives a new attempt of `torchrun --max-restarts` the store of the attempt before, whose addresses gloo
    # would try in vain: each attempt has a part of the store for itself.
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"trainer/{attempt}", store)  # type: ignore[attr-defined]  # its own list lacks it
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield
    except BaseException:
        if not on_gpu:  # NCCL would wait for the other processes, which may never get here
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank_and_size() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def local_batch(batch: Batch) -> Batch:
    """The rows of a batch that this process trains on."""
    rank, size = rank_and_size()
    num_rows = len(batch.inputs_BT)
    rows = slice(rank * num_rows // size, (rank + 1) * num_rows // size)
    return Batch(batch.index, batch.inputs_BT[rows], batch.targets_BT[rows])


def parallelize(model: nn.Module, kind: str) -> nn.Module:
    """The network for the forward pass; with FSDP, the parameters of `model` are sharded in place."""
    _, size = rank_and_size()
    if size == 1:
        return model
    if kind == "ddp":
        return DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # half a second, which only a run on several processes needs

    mesh = init_device_mesh(next(model.parameters()).device.type, (size,))  # by default, that of a GPU if there is one
    for block in model.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, which FSDP2 may have sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
