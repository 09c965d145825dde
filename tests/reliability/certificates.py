"""Faults in the state that a checkpoint saves: which are noticed, how many clean states are refused, and the cost.

python -m tests.reliability.certificates            faults, clean steps, and the cost of a save
python -m tests.reliability.certificates --kills 50 a run that becomes NaN is killed and resumed, each time
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lossguard import Guard
from lossguard.checkpoints.state import damage_in
from lossguard.torch import Checkpoints
from tests.lossguard.scripted import ScriptedRun

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
    """A model with AdamW."""

    def __init__(self, width: int) -> None:
        self.model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def step(self, batch: Tensor) -> None:
        """Train on a batch."""
        self.optimizer.zero_grad()
        self.model(batch).square().mean().backward()
        self.optimizer.step()

    def damage(self) -> str | None:
        """Return what a certificate finds."""
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return damage_in({"model": (self.model, model), "optimizer": (self.optimizer, optimizer)})


def inject(each: int) -> None:
    """Inject every fault so many times, at random places, and print how many were noticed."""
    small = Small(32)
    for _ in range(10):
        small.step(torch.randn(4, 32))
    for name, (target, change) in FAULTS.items():
        noticed = 0
        for _ in range(each):
            parameter = random.choice(list(small.model.parameters()))
            tensor = parameter.data if target == "weight" else small.optimizer.state[parameter][target]
            before = tensor.clone()
            change(tensor, random.randrange(tensor.numel()))
            noticed += small.damage() is not None
            tensor.copy_(before)
        print(f"{name}: {noticed} of {each} noticed")


def clean(steps: int) -> None:
    """Print how many of these clean steps get no certificate."""
    small = Small(16)
    refused = 0
    for _ in range(steps):
        small.step(torch.randn(4, 16))
        refused += small.damage() is not None
    print(f"{refused} of {steps} clean steps refused")


def cost(width: int) -> None:
    """Print the CPU time of the check as a share of the CPU time of a save."""
    torch.set_num_threads(1)
    small = Small(width)
    small.step(torch.randn(4, width))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, blocking=True, model=small.model, optimizer=small.optimizer)
        shares = []
        for step in range(5):
            began = time.process_time()
            checkpoints.save(step, {"step": step})
            saved = time.process_time()
            small.damage()
            shares.append((time.process_time() - saved) / (saved - began))
        size = sum(file.stat().st_size for file in Path(folder, "step-000000004").iterdir())
    print(f"{100 * sorted(shares)[2]:.1f} % of the CPU time of a save of {size / 1e6:.0f} MB")


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
