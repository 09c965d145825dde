"""What a guarded run of a framework is worth: the measurements of docs/frameworks.md.

    python -m benchmarks.frameworks accelerate exact        bit for bit against a plain run without the skipped batches
    python -m benchmarks.frameworks accelerate held-out     the loss on unseen text against clean runs, three seeds
    python -m benchmarks.frameworks accelerate time         time of a step against the framework alone

and with lightning in its place.

A guarded run has planted faults, bad batches and a weight that becomes NaN, and reports to a collector of its own.
"""

import argparse
import importlib
import os
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.frameworks.job import Arm, Job, Result
from examples.laptop import collector
from lossguard import Client

FRAMEWORKS = ("accelerate", "hf", "lightning")
TIMED_STEPS, TIMED_PAIRS = 120, 8


def exact(arm: Arm, steps: int) -> None:
    """Prints how many steps are equal."""
    with collector() as folder:
        guarded, skips = _guarded(arm, Job(folder=folder, guarded=True, faults=True, steps=steps))
        plain = arm.train(Job(folder=folder, faults=True, skips=skips, steps=steps))
    equal = sum(guarded.seen[step] == plain.seen[step] for step in range(steps))
    print(f"batches skipped by the policy: {skips}; steps executed: {guarded.executed}")
    print(f"steps with equal contents and losses: {equal} of {steps}")
    print(f"weights, optimizer, schedule and random numbers equal: {guarded.states == plain.states}")


def held_out(arm: Arm, steps: int) -> None:
    """Prints the held-out loss of guarded and clean runs."""
    for seed in range(3):
        with collector() as folder:
            guarded, skips = _guarded(arm, Job(folder=folder, guarded=True, faults=True, seed=seed, steps=steps))
            clean = arm.train(Job(folder=folder, seed=seed, steps=steps))
        share = guarded.held_out / clean.held_out - 1
        print(f"seed {seed}: guarded {guarded.held_out:.4f}, clean {clean.held_out:.4f}: {share:+.2%}; skips {skips}")


def timing(arm: Arm) -> None:
    """Prints the ratios of the step times of pairs of runs, which take turns; the guarded ones save checkpoints."""
    wall, cpu = [], []
    for pair in range(TIMED_PAIRS):
        results = {}
        for guarded in (False, True) if pair % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                job = Job(folder=Path(folder), guarded=guarded, steps=TIMED_STEPS, mode="offline")
                results[guarded] = arm.train(job)
        wall.append(_ratio([statistics.median(results[guarded].step_seconds[10:]) for guarded in (True, False)]))
        cpu.append(_ratio([statistics.mean(results[guarded].cpu_seconds[10:]) for guarded in (True, False)]))
    for name, ratios in (("median step, clock", wall), ("mean step, CPU of all threads", cpu)):
        shown = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
        print(f"{name}: guarded / plain {statistics.median(ratios):.4f} (all: {shown})")


def _ratio(pair: list[float]) -> float:
    return pair[0] / pair[1]


def _guarded(arm: Arm, job: Job) -> tuple[Result, list[tuple[int, int]]]:
    """A guarded run, and the batches that it skipped."""
    result = arm.train(job)
    with Client(os.environ["LOSSGUARD_URL"]) as client:
        run = client.get(f"/runs/{result.run_id}")
    print("interventions: " + ", ".join(each["state"] for each in run["interventions"]))
    return result, [(skip["skip_from"], skip["skip_to"]) for skip in run["skip_ledger"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("measurement", choices=("exact", "held-out", "time"))
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    framework: Arm = importlib.import_module(f"benchmarks.frameworks.with_{given.framework}")
    if given.measurement == "time":
        timing(framework)
    else:
        (exact if given.measurement == "exact" else held_out)(framework, given.steps)
