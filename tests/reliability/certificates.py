"""Faults in the state that a checkpoint saves: which are noticed, how many clean states are refused, and the cost.

python -m tests.reliability.certificates            faults, clean steps, and the cost of a save
python -m tests.reliability.certificates --kills 50 a run that becomes NaN is killed and resumed, each time
"""

import argparse
import math
import os
import random
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from lossguard import Guard
from lossguard.checkpoints.copies import copies_in
from lossguard.checkpoints.state import StepCounts, damage_in
from lossguard.run.collectives import local_part
from lossguard.run.ranks import current_ranks
from lossguard.spool.band import MAX_STEPS, Measured, above_band
from lossguard.torch import Checkpoints
from tests.lossguard.scripted import ScriptedRun
from tests.ports import free_port

Fault = Callable[[Tensor, int], None]
"""Changes a tensor at an index."""


def flip(bits: range) -> Fault:
    """A fault that flips one of these bits of a float32."""

    def change(tensor: Tensor, index: int) -> None:
        tensor.view(-1).view(torch.int32)[index] ^= torch.tensor(1 << random.choice(bits), dtype=torch.int64).int()

    return change


def put(value: float) -> Fault:
    """A fault that writes a value."""

    def change(tensor: Tensor, index: int) -> None:
        tensor.view(-1)[index] = value

    return change


FAULTS: dict[str, tuple[str, Fault]] = {
    "NaN in a weight": ("weight", put(torch.nan)),
    "NaN in a moment": ("exp_avg", put(torch.nan)),
    "infinity in a weight": ("weight", put(torch.inf)),
    "negative second moment": ("exp_avg_sq", put(-1e-6)),
    "half a step in a count": ("step", put(10.5)),
    "sign bit of a second moment": ("exp_avg_sq", flip(range(31, 32))),
    "exponent bit of a weight": ("weight", flip(range(23, 31))),
    "exponent bit of a moment": ("exp_avg", flip(range(23, 31))),
    "mantissa bit of a weight": ("weight", flip(range(23))),
    "sign bit of a weight": ("weight", flip(range(31, 32))),
}


class Small:
    """A model with AdamW; `unused`: its last layer takes part in one step of seven only."""

    def __init__(self, width: int, *, unused: bool = False) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.counts, self.step_number = StepCounts(), 0
        self._unused = unused

    def step(self, batch: Tensor, target: Tensor | float = 0.0) -> Measured:
        """Train on a batch; return what was measured."""
        self.optimizer.zero_grad()
        inner = self.model[0](batch)
        out = inner if self._unused and self.step_number % 7 else self.model[2](inner.tanh())
        loss = (out - target).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)
        self.optimizer.step()
        self.step_number += 1
        return self.step_number - 1, loss.item(), norm.item()

    def parts(self) -> dict[str, tuple[Any, Any]]:
        """What a certificate is about."""
        return {name: (each, each.state_dict()) for name, each in self.objects().items()}

    def objects(self) -> dict[str, Any]:
        """What is saved."""
        return {"model": self.model, "optimizer": self.optimizer}

    def damage(self) -> str | None:
        """Return what a certificate finds on one rank."""
        return damage_in(self.parts(), self.counts, self.step_number)


def inject(each: int) -> None:
    """Inject every fault so many times into one process, and on the last of two ranks, and print how many are found."""
    random.seed(0)
    small = Small(32)
    for _ in range(10):
        small.step(torch.randn(4, 32))
        small.damage()
    alone = {}
    for name, (target, change) in FAULTS.items():
        alone[name] = 0
        for _ in range(each):
            parameter = random.choice(list(small.model.parameters()))
            tensor = parameter.data if target == "weight" else small.optimizer.state[parameter][target]
            before = tensor.clone()
            change(tensor, random.randrange(tensor.numel()))
            small.step_number += 1
            alone[name] += small.damage() is not None
            tensor.copy_(before)
    on_ranks = on_each_rank(2, _inject_on_rank, each) | on_each_rank(4, _swap_shards, each)
    for name, num in on_ranks.items():
        by_one = f"{alone[name]} of {each} by one process, " if name in alone else ""
        print(f"{name}: {by_one}{num} of {each} by its copies on other ranks and by itself")


def on_each_rank(num: int, action: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run `action(*arguments)` on so many ranks; return what rank 0 returns."""
    found = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.start_processes(_as_rank, (num, free_port(), action, arguments, found), nprocs=num)  # type: ignore
    result: dict[str, Any] = found.get()
    return result


def _as_rank(rank: int, num: int, port: int, action: Callable[..., Any], arguments: Any, found: Any) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num)
    random.seed(rank)
    result = action(*arguments)
    if rank == 0:
        found.put(result)
    dist.barrier()
    dist.destroy_process_group()


def _inject_on_rank(each: int) -> dict[str, int]:
    small = Small(32)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, blocking=True, **small.objects())
        for step in range(3):
            small.step(torch.randn(4, 32, generator=torch.Generator().manual_seed(step)))
            checkpoints.save(small.step_number, {})
        assert not checkpoints.take_uncertified()
        found = {}
        for name, (target, change) in [*FAULTS.items(), *SWAPS.items()]:
            found[name] = 0
            for _ in range(each):
                number = random.randrange(4)
                parameter = list(small.model.parameters())[number]
                tensor = parameter.data if target == "weight" else small.optimizer.state[parameter][target]
                before = tensor.clone()
                if dist.get_rank() == 1:
                    change(tensor, random.randrange(tensor.numel()))
                small.step_number += 1
                checkpoints.save(small.step_number, {})
                found[name] += bool(checkpoints.take_uncertified())
                tensor.copy_(before)
    return found


def swap(tensor: Tensor, index: int) -> None:
    """Have two halves of a tensor change places."""
    tensor.copy_(tensor.roll(len(tensor) // 2, 0))


SWAPS: dict[str, tuple[str, Fault]] = {"two halves of a weight swapped": ("weight", swap)}


def _swap_shards(each: int) -> dict[str, int]:
    """Two copies of a model on two ranks each; in the first copy the ranks hold each other's shard."""
    small = Small(64)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
    fully_shard(small.model, mesh=mesh)
    small.optimizer = torch.optim.AdamW(small.model.parameters())
    ranks, found = current_ranks(), 0
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(ranks.broadcast(folder), blocking=True, **small.objects())
        for number in range(each):
            batch = torch.randn(4, 64, generator=torch.Generator().manual_seed(number))
            small.model(batch).square().mean().backward()
            small.optimizer.step()
            small.step_number += 1
            parameter = list(small.model.parameters())[number % 4]
            tensor = parameter if number % 3 else small.optimizer.state[parameter]["exp_avg"]
            shard = local_part(tensor)
            before, shards = shard.clone(), ranks.gather(shard.clone())
            if ranks.rank < 2:
                shard.copy_(shards[1 - ranks.rank])
            checkpoints.save(small.step_number, {})
            found += bool(checkpoints.take_uncertified())
            shard.copy_(before)
    return {"shards of two ranks swapped": found}


NOISE: dict[str, Callable[[Tensor], Tensor]] = {
    "small batches": lambda batch: batch,
    "quiet": lambda batch: batch * 0.01 + 1,
    "heavy tails": lambda batch: batch / batch.new_empty(len(batch), 1).exponential_().sqrt(),
    "very heavy tails": lambda batch: batch * batch.new_empty(len(batch), 1).normal_().mul(1.5).exp(),
}
"""What a run's batches look like, from normal ones."""


def clean(steps: int) -> None:
    """Print how many of these clean steps get no certificate, a sixth of them in each run."""
    torch.set_num_threads(1)
    for name in [*NOISE, "a layer is unused at times", "learning rate too high for it"]:
        small, refused = Small(16, unused="unused" in name), 0
        if "rate" in name:
            small.optimizer.param_groups[0]["lr"] = 0.03
        steps_before: deque[Measured] = deque(maxlen=MAX_STEPS)
        for _ in range(steps // 6):
            batch = NOISE.get(name, NOISE["small batches"])(torch.randn(4, 16))
            steps_before.append(small.step(batch, target=batch.sin()))
            refused += (small.damage() or above_band([*steps_before], small.step_number)) is not None
        print(f"{refused} of {steps // 6} clean steps refused: {name}")
    num = steps // 20
    print(f"{on_each_rank(2, _clean_on_rank, num)['refused']} of {num} clean steps of two ranks refused")


def _clean_on_rank(steps: int) -> dict[str, int]:
    small, refused, ranks = Small(16), 0, current_ranks()
    network = DistributedDataParallel(small.model)
    for _ in range(steps):
        small.optimizer.zero_grad()
        network(torch.randn(4, 16)).square().mean().backward()
        small.optimizer.step()
        small.step_number += 1
        refused += small.damage() is not None or sum(ranks.gather(copies_in(small.parts(), ranks).balance)) != 0
    return {"refused": refused}


def cost(width: int) -> None:
    """Print the CPU time of the check as a share of the CPU time of a save, for one and two ranks."""
    print(f"one process: {_cost(width)['text']}")
    print(f"each of two ranks: {on_each_rank(2, _cost, width)['text']}")


def _cost(width: int) -> dict[str, str]:
    default, said, ranks = torch.get_num_threads(), [], current_ranks()
    small = Small(width)
    small.step(torch.zeros(4, width))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(ranks.broadcast(folder), **small.objects())
        for threads in (1, default):
            torch.set_num_threads(threads)
            shares = []
            for step in range(7):
                began = time.process_time()
                checkpoints.save(step, {"step": step})
                checkpoints.settle(wait=True)
                saved = time.process_time()
                damage_in(small.parts(), small.counts, step, ranks)
                copies_in(small.parts(), ranks)
                shares.append((time.process_time() - saved) / (saved - began))
            said.append(f"{100 * sorted(shares)[3]:.1f} % with {threads} threads")
        size = sum(file.stat().st_size for file in Path(checkpoints.directory, "step-000000004").iterdir())
    return {"text": f"{', '.join(said)}, of the CPU time of a save of {size / 1e6:.0f} MB"}


def resume(folder: str, poisoned: int) -> None:
    """Train from the newest checkpoint; exit with 1 if that is not finite. The batch `poisoned` holds NaN."""
    small = Small(32)
    checkpoints = Checkpoints(folder, keep=2, memory=2, memory_every=3, model=small.model, optimizer=small.optimizer)
    batches = [torch.full((4, 32), torch.nan if index == poisoned else 1.0) for index in range(10_000)]
    has_looked = False
    for _, batch in Guard(ScriptedRun(), checkpoints=checkpoints, every=5).steps(batches, 10_000):
        if not has_looked and small.damage() is not None:
            os._exit(1)
        has_looked = True
        small.step(batch)


def kill(times: int) -> None:
    """Kill a run that becomes NaN at random moments, and print how many resumes were not finite."""
    torch.set_num_threads(1)
    damaged = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(times + 1):
            pid = os.fork()
            if pid == 0:
                resume(folder, poisoned=12)
                os._exit(0)
            time.sleep(random.uniform(1.0, 7.0))
            os.kill(pid, signal.SIGKILL)
            damaged += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
            if number == times:
                left = sorted(path.parent.name for path in Path(folder).glob("*/manifest.json"))
    print(f"{damaged} of {times} resumes were not finite; left: {', '.join(left)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--each", type=int, default=20, help="faults of each kind")
    parser.add_argument("--clean", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=2_000)
    options = parser.parse_args()
    if options.kills:
        kill(options.kills)
    else:
        inject(options.each)
        cost(options.width)
        clean(options.clean)
