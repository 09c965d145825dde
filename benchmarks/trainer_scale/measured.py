"""The operations in gloo processes on this machine: bytes sent, seconds, and seconds of CPU.

Each rank is a process of one thread of torch. A FileStore holds their addresses, so that their only connections are
gloo's.
"""

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trainer_scale import operations, wire
from benchmarks.trainer_scale.traffic import Traffic

TENSORS = 60
ROWS = 16
QUIET = 0.05
"""Seconds after which the last bytes of an operation are on their way."""
PREDICTED: dict[str, Callable[[int], Traffic]] = {
    "exchange at a boundary": operations.boundary,
    "exchange by all-gather (before)": operations.boundary_before,
    "action on all ranks": operations.run_on_all,
    "action on all ranks by all-gather (before)": operations.run_on_all_before,
    "save": lambda ranks: operations.save(ranks, TENSORS),
    "restore": lambda ranks: operations.restore(ranks, checkpoints=1),
    "the same planned by torch (before)": lambda ranks: operations.plan_by_torch(ranks, TENSORS),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One operation on so many ranks."""

    name: str
    ranks: int
    sent: float
    """Bytes, of all ranks together."""
    seconds: float
    cpu_seconds: float
    """Mean of the ranks."""


def measure(ranks: int, num_times: int = 20) -> list[Measured]:
    """Every operation of PREDICTED, on so many processes."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    folder = Path(tempfile.mkdtemp())
    arguments = [(rank, ranks, num_times, folder, barrier, results) for rank in range(ranks)]
    processes = [context.Process(target=_work, args=each) for each in arguments]
    try:
        for process in processes:
            process.start()
        found = [results.get(timeout=300) for _ in range(ranks * len(PREDICTED))]
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return [_combined(name, ranks, [each for each in found if each.name == name]) for name in PREDICTED]


def _combined(name: str, ranks: int, found: list[Measured]) -> Measured:
    seconds = max(each.seconds for each in found)
    return Measured(
        name, ranks, sum(each.sent for each in found), seconds, sum(each.cpu_seconds for each in found) / ranks
    )


def _work(rank: int, ranks: int, num_times: int, folder: Path, barrier: Any, results: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    for name, call in zip(PREDICTED, _calls(folder), strict=True):
        call()
        barrier.wait()
        time.sleep(QUIET)
        before, began_cpu, began = wire.bytes_sent(), time.process_time(), time.perf_counter()
        barrier.wait()
        for _ in range(num_times):
            call()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        barrier.wait()
        time.sleep(QUIET)
        sent = wire.bytes_sent() - before
        results.put(Measured(name, ranks, sent / num_times, seconds / num_times, cpu_seconds / num_times))
    barrier.wait()
    dist.destroy_process_group()


def _calls(folder: Path) -> Iterator[Callable[[], object]]:
    """The operations in the order of PREDICTED."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    from lossguard.checkpoints.sharded.checkpoint import split_tensors
    from lossguard.checkpoints.sharded.tensor_files import write_planned_by_torch
    from lossguard.run.ranks import RankState
    from lossguard.torch import Checkpoints, TorchRanks

    ranks = TorchRanks(pause=0)
    group, size = ranks.group, ranks.size
    parts = [torch.empty(4, dtype=torch.int64) for _ in range(size)]
    report: list[Any] = [None] * size
    model = nn.Sequential(*(nn.Linear(ROWS, ROWS, bias=False) for _ in range(TENSORS)))
    fully_shard(model)
    checkpoints = Checkpoints(folder / "checkpoints", blocking=True, keep=1, ranks=ranks, model=model)
    planned = ranks.broadcast(folder / "planned")
    planned.mkdir(exist_ok=True)
    shards = split_tensors("model", model.state_dict())[1]

    yield lambda: ranks.exchange(RankState(0), wait=True)
    yield lambda: dist.all_gather(parts, torch.zeros(4, dtype=torch.int64), group)
    yield lambda: ranks.run_on_all(int)
    yield lambda: dist.all_gather_object(report, (0, ""), group=group)
    yield lambda: checkpoints.save(1, {})
    yield lambda: checkpoints.load(1)
    yield lambda: write_planned_by_torch(planned, shards, group)
