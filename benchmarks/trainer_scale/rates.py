"""Rates of the hardware: those that a user gives, with where each default is from, and those that are measured here."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """One rank on one device; a node has `ranks_per_node` of them."""

    ranks_per_node: int = 8
    """As in an NVIDIA DGX or HGX H100."""
    bytes_per_parameter: int = 12
    """Of a checkpoint: weights and the two moments of AdamW in float32, as FSDP2 keeps them with mixed precision."""
    device_memory: float = 80e9
    """Bytes: H100 SXM (NVIDIA's data sheet)."""
    device_to_host: float = 25e9
    """Bytes/s of a copy into page-locked memory: 80 % of PCIe 4.0 x16 (31.5e9 each way, PCI-SIG; 5.0: 63e9)."""
    node_to_storage: float = 2.5e9
    """Bytes/s of one node, read or write, to the shared disk or object store: a 25 Gbit/s network at 80 %. Assumed."""
    node_network: float = 2.5e9
    """Bytes/s of one node for gloo: the same network. Assumed."""
    hop: float = 300e-6
    """Seconds from a rank's `send` to the next rank's reaction: the kernel's TCP, a thread that wakes up. Measured
    here: maxima of two ranks, 0.35 ms; a machine that is not virtual takes less."""
    cpu_of_message: float = 170e-6
    """Seconds of CPU per message sent and received in gloo. Measured here: an all-gather of eight ranks."""
    sha256: float = 1.8e9
    """Bytes/s on one core: measured here (the processor has SHA instructions)."""
    crc32: float = 7.0e9
    """Bytes/s on one core: measured here (a zlib that uses vector instructions; others reach 1 to 3 GB/s)."""
    json: float = 100e6
    """Bytes/s to parse the index: measured here."""
    planned: float = 36e-6
    """Seconds of CPU of rank 0 for each tensor of each rank in torch's plan: measured here."""


def measured_here() -> dict[str, float]:
    """The same rates on one core of this machine, by CPU time."""
    block = bytes(64 * MEGABYTE)
    text = json.dumps({f"model.layers.{n}": {"offsets": [n, 0], "shape": [16, 8192], "at": n} for n in range(20_000)})
    return {
        "sha256": len(block) / _cpu_seconds(lambda: hashlib.sha256(block).digest()),
        "crc32": len(block) / _cpu_seconds(lambda: zlib.crc32(block)),
        "json": len(text) / _cpu_seconds(lambda: json.loads(text)),
        "planned": _planning_seconds(),
    }


def _planning_seconds(ranks: int = 128, tensors: int = 100) -> float:
    """CPU seconds of rank 0 for one item: unpickling it, planning it, pickling it again, describing and storing it."""
    import pickle

    import torch
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.planner import SavePlan

    from lossguard.checkpoints.sharded.tensor_shard import TensorShard

    local = torch.empty(64, 8)

    def plan_of(rank: int) -> bytes:
        shard = TensorShard(local, [64 * rank, 0], [64 * ranks, 8])
        names = (f"optimizer.state.{number}.exp_avg_sq" for number in range(tensors))
        return pickle.dumps(SavePlan([item for name in names for item in shard.__create_write_items__(name, shard)]))

    plans = [plan_of(rank) for rank in range(ranks)]

    def plan() -> None:
        planner: Any = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planned, metadata = planner.create_global_plan([pickle.loads(each) for each in plans])
        for each in planned:
            pickle.dumps(each)
        pickle.dumps(metadata)

    return _cpu_seconds(plan, num_times=1) / (ranks * tensors)


def _cpu_seconds(call: Callable[[], object], num_times: int = 3) -> float:
    began = time.process_time()
    for _ in range(num_times):
        call()
    return (time.process_time() - began) / num_times
