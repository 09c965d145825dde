"""A recipe that is unstable by itself, without Lossguard and with each policy. Prints the table of docs/drill.md.

python -m benchmarks.unstable [--seed 1 --seed 2 --seed 3] [--policy adaptive --policy palm]

All runs of a seed use the same recipe, steps and seed. Those with a policy take at least 15 ms a step, as in the drill.
"""

import argparse
import math
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lossguard import Client, CollectorError, Run
from trainer.config import Recipe, load_recipe
from trainer.drill.collector import release_holds, run_collector
from trainer.drill.drill import run_strategy
from trainer.drill.fault_results import LoggedStep, rollback_costs
from trainer.train import Job

LAST_STEPS = 400
"""Steps at the end whose mean loss is compared."""
RUN_ID = "unstable"


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    policy: str
    """"none" without Lossguard."""
    loss: float
    """Mean of the last steps, nats."""
    steps_lost: int
    interventions: Counter[tuple[str, str]]
    """(kind, state) -> how many."""

    def to_line(self, seed: int) -> str:
        orders = ", ".join(f"{count} {kind} {state}" for (kind, state), count in sorted(self.interventions.items()))
        return f"| {seed} | {self.policy} | {orders or 'none'} | {self.steps_lost} | {self.loss:.3f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unstable")
    parser.add_argument("--seed", type=int, action="append", help="default: 1, 2 and 3")
    parser.add_argument("--policy", action="append", help="default: none, palm and adaptive")
    options = parser.parse_args(arguments)
    print("| seed | policy | interventions | steps trained again | mean loss of the last 400 steps |")
    print("|---|---|---|---|---|")
    for seed in options.seed or (1, 2, 3):
        recipe = load_recipe("unstable", [f"seed={seed}"])
        for policy in options.policy or ("none", "palm", "adaptive"):
            with tempfile.TemporaryDirectory() as folder:
                print(measure(recipe, policy, Path(folder)).to_line(seed), flush=True)


def measure(recipe: Recipe, policy: str, folder: Path) -> Result:
    """One run of `recipe` with this policy, or without Lossguard if it is "none"."""
    if policy == "none":
        history, _ = run_strategy(recipe, Job(directory=folder / "run", run=Run(id=RUN_ID)))
        return Result(policy, final_loss(history), 0, Counter())
    with run_collector(folder) as client, release_holds(client, RUN_ID), set_policy(client, policy):
        job = Job(directory=folder / "run", run_id=RUN_ID, mode="online", url=client.url)
        history, _ = run_strategy(recipe, job)
        interventions = client.get(f"/runs/{RUN_ID}")["interventions"]
    _, steps_lost, _ = rollback_costs([], history)
    orders = Counter((str(each["kind"]), str(each["state"])) for each in interventions)
    return Result(policy, final_loss(history), steps_lost, orders)


@contextmanager
def set_policy(client: Client, policy: str) -> Iterator[None]:
    """Give the run this policy as soon as it is registered; it then holds for all but the first steps."""

    def wait_and_set() -> None:
        while not over.wait(0.05):
            with suppress(CollectorError):  # the run does not exist yet
                client.request("PUT", f"/runs/{RUN_ID}/policy", {"name": policy, "mode": "auto"})
                return

    over = threading.Event()
    thread = threading.Thread(target=wait_and_set)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def final_loss(history: Sequence[LoggedStep]) -> float:
    """Nats; NaN if one of the last steps is NaN."""
    last = history[-1].step
    final = {each.step: each.loss for each in history if each.step > last - LAST_STEPS}
    return statistics.fmean(final.values()) if final else math.nan


if __name__ == "__main__":
    main()
