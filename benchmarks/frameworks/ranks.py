"""Runs of several processes, each of which is one rank of torch.distributed on gloo.

torchrun --nproc-per-node 2 -m benchmarks.frameworks.ranks FRAMEWORK JOB    # as `train` starts it; JOB in JSON
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.frameworks.job import Arm, Job, Result, Size


def train(framework: str, job: Job, num_ranks: int) -> list[Result]:
    """Train with `num_ranks` processes, and return what each has seen. A run that kills itself is started again."""
    results = _train_once(framework, job, num_ranks)
    if job.kill_at is None:
        return results
    again = _train_once(framework, dataclasses.replace(job, kill_at=None), num_ranks)
    for earlier, later in zip(results, again, strict=True):
        later.seen = earlier.seen | later.seen
        later.executed += earlier.executed
    return again


def _train_once(framework: str, job: Job, num_ranks: int) -> list[Result]:
    text = json.dumps(dataclasses.asdict(job) | {"folder": str(job.folder)})
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    command = [sys.executable, "-m", *torchrun, "-m", "benchmarks.frameworks.ranks", framework, text]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    results = [job.folder / f"rank-{rank}.json" for rank in range(num_ranks)]
    if (done.returncode and job.kill_at is None) or not all(path.exists() for path in results):
        raise SystemExit(done.stderr[-3000:])
    return [Result.read(job.folder, rank) for rank in range(num_ranks)]


def main(framework: str, text: str) -> None:
    """Be one rank."""
    given = json.loads(text)
    size, folder = Size(**given.pop("size")), Path(given.pop("folder"))
    skips = [(first, last) for first, last in given.pop("skips")]
    dist.init_process_group("gloo")  # before lossguard.init, so that the ranks agree on an id
    torch.set_num_threads(1)
    arm: Arm = importlib.import_module(f"benchmarks.frameworks.with_{framework}")
    arm.train(Job(size=size, folder=folder, skips=skips, **given)).write(folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
