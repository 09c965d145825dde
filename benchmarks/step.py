"""Time that Lossguard adds to a training step: medians of interleaved rounds, with the plain step twice.

    python -m benchmarks.step [--only log ranks] [--rounds 120]

The difference between the two plain steps is noise.

* log: a small GPT on half of the cores, without and with `run.log` of eight metrics while the sender delivers.
* ranks: the same with DDP on two gloo processes of one thread each, without and with a guard. The guard saves a
  checkpoint once, at its first boundary, which is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lossguard
from benchmarks.harness import Row, added, interleaved, print_rows, sink
from lossguard.torch import Checkpoints, causal_lm_loss
from trainer.config import ModelConfig
from trainer.model import GPT

NUM_ROUNDS, WARM_UP, NUM_RANKS = 120, 5, 2
SHAPE = ModelConfig(layers=4, heads=4, width=128, context=128)
B, T, V = 4, SHAPE.context, SHAPE.vocab_size


def new_step(wrap: Callable[[nn.Module], nn.Module] = lambda model: model) -> tuple[Any, Any, Callable[[], Any]]:
    """A model, its optimizer, and a step of them, which returns the metrics."""
    torch.manual_seed(0)
    model = wrap(GPT(SHAPE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens_BT = torch.randint(V, (B, T + 1))

    def step() -> dict[str, Any]:
        optimizer.zero_grad()
        terms = causal_lm_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        terms.loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        metrics = {"loss": terms.cross_entropy.item(), "grad_norm": norm, "log_z": terms.log_z, "lr": 1e-4}
        return metrics | {"tokens": B * T, "log_z_max": 12.5, "z_loss": 0.01, "step_seconds": 0.05}

    return model, optimizer, step


def in_rounds(
    step: Callable[[], Any], rounds: int, before: Callable[[], object], after: Callable[[int, Any], object]
) -> list[list[tuple[float, ...]]]:
    """Of the plain step, again, and between `before` and `after`: its seconds, CPU seconds, and those of `before`."""

    def timed(number: int, *, plain: bool) -> Sequence[float]:
        began, cpu_began = time.perf_counter(), time.process_time()
        if not plain:
            before()
        reached, metrics = time.perf_counter(), step()
        if not plain:
            after(number, metrics)
        return time.perf_counter() - began, time.process_time() - cpu_began, reached - began

    ways = [lambda number, plain=plain: timed(number, plain=plain) for plain in (True, True, False)]
    return interleaved(ways, rounds, WARM_UP)


def log(rounds: int = NUM_ROUNDS) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    with sink() as running, tempfile.TemporaryDirectory() as folder:
        run = lossguard.init("bench", url=running.url, directory=folder)
        found = in_rounds(new_step()[2], rounds, lambda: None, lambda number, metrics: run.log(number, **metrics))
        run.finish()
    torch.set_num_threads(threads)
    plain, again, ours = (statistics.median(seconds for seconds, *_ in each) for each in found)
    comparison = (
        f"without {1e3 * plain:.2f} ms, with {1e3 * ours:.2f} ms; two plain steps differ by {added(again, plain)}"
    )
    yield Row("instrumented step: added to the median", 100 * (ours / plain - 1), "%", 2.0, comparison)


def ranks(rounds: int = NUM_ROUNDS // 2) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.step", "--rounds", str(rounds), "--rank", folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "LOSSGUARD_MODE": "offline"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        found = json.loads((Path(folder) / "times.json").read_text())
    plain, again, guarded = (statistics.median(seconds for seconds, *_ in each) for each in found)
    cpu, cpu_again, cpu_guarded = (statistics.fmean(used for _, used, _ in each) for each in found)
    boundary = statistics.fmean(seconds for *_, seconds in found[2])  # not every boundary has an exchange
    comparison = (
        f"{1e6 * boundary:.0f} us at the boundary of a step of {1e3 * plain:.2f} ms; the guarded step as a whole "
        f"{added(guarded, plain)}, two plain steps differ by {added(again, plain)}; {rounds} rounds"
    )
    yield Row(f"agreement of {NUM_RANKS} ranks: time in the guard", 100 * boundary / plain, "%", 1.0, comparison)
    comparison = f"{1e3 * cpu:.2f} ms without the guard; two plain steps differ by {added(cpu_again, cpu)}"
    yield Row("the same: added CPU time of all threads", 100 * (cpu_guarded / cpu - 1), "%", None, comparison)


def _be_a_rank(folder: Path, rounds: int) -> None:
    dist.init_process_group("gloo")
    model, optimizer, step = new_step(DistributedDataParallel)
    run = lossguard.init("bench", directory=folder)
    checkpoints = Checkpoints(folder / "checkpoints", model=model, optimizer=optimizer)
    boundaries = lossguard.Guard(run, checkpoints=checkpoints, every=10**9).steps(range(10**9), until=10**9)
    times = in_rounds(step, rounds, lambda: next(boundaries), lambda number, metrics: None)
    if dist.get_rank() == 0:
        (folder / "times.json").write_text(json.dumps(times))
    run.finish()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("log", "ranks"), default=["log", "ranks"])
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        _be_a_rank(given.rank, given.rounds)
    else:
        for name in given.only:
            print_rows({"log": log, "ranks": ranks}[name](given.rounds))
