"""What the agreement of several ranks adds to a step: a DDP step with a guard compared with the same step without.

    python -m benchmarks.ranks

Two gloo processes with one thread each; a step takes some tens of milliseconds. Each round has two plain steps and a
guarded one in rotating order; the two plain ones differ only by noise. The guard saves a checkpoint once, at its first
boundary, which is not counted; `python -m benchmarks.checkpoint` measures that.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lossguard
from benchmarks.rows import Row, print_rows
from lossguard.torch import Checkpoints

NUM_RANKS = 2
NUM_ROUNDS = 60
WIDTH, NUM_LAYERS, NUM_TOKENS = 256, 4, 512


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.ranks", folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "LOSSGUARD_MODE": "offline"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        times = json.loads((Path(folder) / "times.json").read_text())
    plain, again, guarded = map(statistics.median, times[:3])
    boundary, cpu_plain, cpu_again, cpu_guarded = map(statistics.fmean, times[3:])  # not every boundary has an exchange
    comparison = (
        f"{1e6 * boundary:.0f} us at the boundary of a step of {1e3 * plain:.2f} ms; the guarded step as a whole "
        f"{_more(guarded, plain)}, two plain steps differ by {_more(again, plain)}; {NUM_ROUNDS} rounds"
    )
    cpu = f"{1e3 * cpu_plain:.2f} ms without the guard; two plain steps differ by {_more(cpu_again, cpu_plain)}"
    return [
        Row(f"agreement of {NUM_RANKS} ranks: time in the guard", 100 * boundary / plain, "%", 1.0, comparison),
        Row("the same: added CPU time of all threads", 100 * (cpu_guarded / cpu_plain - 1), "%", None, cpu),
    ]


def _more(seconds: float, base: float) -> str:
    return f"{100 * (seconds / base - 1):+.2f} %"


def _rounds(step: Callable[[], None], boundaries: Iterator[Any]) -> list[list[float]]:
    """Seconds of the plain step, of the plain step again, of the guarded step, and of its boundary alone; then the
    CPU seconds of the first three, gloo's threads included."""
    times: list[list[float]] = [[] for _ in range(7)]
    for number in range(NUM_ROUNDS + 5):
        for variant in ((number + offset) % 3 for offset in range(3)):
            began, cpu_began = time.perf_counter(), time.process_time()
            if variant == 2:
                next(boundaries)
            reached = time.perf_counter()
            step()
            if number >= 5:  # the first rounds warm up
                times[variant].append(time.perf_counter() - began)
                times[4 + variant].append(time.process_time() - cpu_began)
                if variant == 2:
                    times[3].append(reached - began)
    return times


def _training_step() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)) for _ in range(NUM_LAYERS)
    ]
    model = DistributedDataParallel(nn.Sequential(*layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = torch.randn(NUM_TOKENS, WIDTH)

    def step() -> None:
        model(inputs).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def _measure_here(folder: Path) -> None:
    dist.init_process_group("gloo")
    model, optimizer, step = _training_step()
    run = lossguard.init("bench", directory=folder)
    checkpoints = Checkpoints(folder / "checkpoints", model=model, optimizer=optimizer)
    guard = lossguard.Guard(run, checkpoints=checkpoints, every=10**9)
    times = _rounds(step, guard.steps(range(10**9), until=10**9))
    if dist.get_rank() == 0:
        (folder / "times.json").write_text(json.dumps(times))
    run.finish()
    dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _measure_here(Path(sys.argv[1]))
    else:
        print_rows(measure())
