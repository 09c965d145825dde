"""What a guarded run of a framework is worth: the measurements of docs/frameworks.md.

    python -m benchmarks.frameworks accelerate exact        bit for bit against a plain run without the skipped batches
                                               (--ranks 2; --kill-at 310: SIGKILL in the guarded run, which is resumed)
    python -m benchmarks.frameworks accelerate held-out     the loss on unseen text against clean runs, three seeds
                                               (--ranks 2; of hf: --data workers, --data streaming)
    python -m benchmarks.frameworks accelerate time         time of a step against the framework alone (--size larger)

and with lightning in its place.

A guarded run has planted faults, bad batches and a weight that becomes NaN, and reports to a collector of its own.
"""

import argparse
import dataclasses
import importlib
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.frameworks import ranks
from benchmarks.frameworks.job import DATA, LARGER, TINY, Arm, Job, Size
from examples.laptop import collector
from lossguard import Client

FRAMEWORKS = ("accelerate", "hf", "lightning")
SIZES = {"tiny": TINY, "larger": LARGER}
TIMED = {TINY: (120, 8), LARGER: (35, 4)}
"""Steps of a run, and pairs of runs."""


def exact(framework: str, steps: int, num_ranks: int, kill_at: int | None) -> None:
    """Prints how many steps are equal, on all ranks."""
    with collector() as folder:
        job = Job(folder=folder, guarded=True, faults=True, steps=steps, kill_at=kill_at, run_id="exact")
        guarded = ranks.train(framework, job, num_ranks)
        skips = _skips("exact")
        plain = ranks.train(framework, Job(folder=folder, faults=True, skips=skips, steps=steps), num_ranks)
    pairs = list(zip(guarded, plain, strict=True))
    equal = sum(all(mine.seen.get(step) == theirs.seen[step] for mine, theirs in pairs) for step in range(steps))
    print(f"batches skipped by the policy: {skips}; steps executed: {guarded[0].executed}")
    print(f"steps with equal contents and losses: {equal} of {steps}, on {num_ranks} ranks")
    states = all(mine.states == theirs.states for mine, theirs in pairs)
    print(f"weights, optimizer, schedule and random numbers equal: {states}")


def held_out(framework: str, steps: int, num_ranks: int, data: str) -> None:
    """Prints the held-out loss of guarded and clean runs."""
    for seed in range(3):
        with collector() as folder:
            job = Job(folder=folder, seed=seed, steps=steps, data=data)
            clean = ranks.train(framework, job, num_ranks)[0]
            job = dataclasses.replace(job, guarded=True, faults=True, run_id="held-out")
            guarded, skips = ranks.train(framework, job, num_ranks)[0], _skips("held-out")
        share = guarded.held_out / clean.held_out - 1
        print(f"seed {seed}: guarded {guarded.held_out:.4f}, clean {clean.held_out:.4f}: {share:+.2%}; skips {skips}")


def timing(arm: Arm, size: Size) -> None:
    """Prints the ratios of the step times of pairs of runs, which take turns; the guarded ones save checkpoints."""
    steps, pairs = TIMED[size]
    clock, loop_cpu, cpu, plain = [], [], [], 0.0
    for pair in range(pairs):
        results = {}
        for guarded in (False, True) if pair % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                job = Job(folder=Path(folder), size=size, guarded=guarded, steps=steps, mode="offline")
                results[guarded] = arm.train(job)
        guarded_run, plain_run = results[True], results[False]
        plain = statistics.median(plain_run.step_seconds[10:])
        clock.append(_ratio(statistics.median, guarded_run.step_seconds, plain_run.step_seconds))
        loop_cpu.append(_ratio(statistics.median, guarded_run.loop_cpu_seconds, plain_run.loop_cpu_seconds))
        cpu.append(_ratio(statistics.mean, guarded_run.cpu_seconds, plain_run.cpu_seconds))
    print(f"a step of the framework alone: {1000 * plain:.0f} ms")
    for name, ratios in (
        ("median step, clock", clock),
        ("median step, CPU of the loop's thread", loop_cpu),
        ("mean step, CPU of all threads", cpu),
    ):
        shown = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
        print(f"{name}: guarded / plain {statistics.median(ratios):.4f} (all: {shown})")


def _ratio(average: Callable[[list[float]], float], guarded: list[float], plain: list[float]) -> float:
    """Without the first steps, in which all is made."""
    return average(guarded[10:]) / average(plain[10:])


def _skips(run_id: str) -> list[tuple[int, int]]:
    with Client(os.environ["LOSSGUARD_URL"]) as client:
        run = client.get(f"/runs/{run_id}")
    print("interventions: " + ", ".join(each["state"] for each in run["interventions"]))
    return [(skip["skip_from"], skip["skip_to"]) for skip in run["skip_ledger"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("measurement", choices=("exact", "held-out", "time"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the model whose steps are timed")
    parser.add_argument(
        "--ranks", type=int, default=1, help="processes of an exact run, or of one whose loss is held out"
    )
    parser.add_argument("--data", choices=DATA, default="map", help="of runs with Hugging Face's Trainer")
    parser.add_argument("--kill-at", type=int, help="step of an exact run at which its processes are killed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measurement == "exact":
        exact(given.framework, given.steps, given.ranks, given.kill_at)
        raise SystemExit
    if given.measurement == "held-out":
        held_out(given.framework, given.steps, given.ranks, given.data)
        raise SystemExit
    arm: Arm = importlib.import_module(f"benchmarks.frameworks.with_{given.framework}")
    timing(arm, SIZES[given.size])
