"""A recipe that is unstable by itself, without Lossguard and with each policy; and what the arms say of the policies.

python -m benchmarks.unstable [--seed 1 --seed 2 --seed 3] [--policy adaptive --policy palm] [--arms arms.jsonl]
    [--store FOLDER]
python -m benchmarks.unstable --regret arms.jsonl [--sealed 21]

The first prints a table of docs/drill.md; runs with a policy take at least 15 ms a step, as in the drill. With --arms
the runs of `adaptive` try the arms of their rollbacks, and append to the file what came out; with --store all runs have
one store, so `adaptive` has the records of earlier arms. --faults N trains the recipe of the drill, with its faults.
The second compares policies on such a file: a first attempt costs what the arm of the policy's choice has cost.
"""

import argparse
import json
import math
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from operator import sub
from pathlib import Path
from typing import Any

from lossguard import Client, CollectorError, Run
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import Arm, IncidentKind
from lossguard.vocabulary.wording import Estimate
from monitor.detection.interventions.decision import MIN_ARMS, Choice, Records
from monitor.detection.settings import Policy
from trainer.config import Recipe, load_recipe
from trainer.drill.collector import release_holds, run_collector
from trainer.drill.drill import FAULT_INTERVAL, FIRST_FAULT, plan, run_strategy, tried_arms
from trainer.drill.fault_results import LoggedStep, rollback_costs
from trainer.train import Job

LAST_STEPS = 400
"""Steps at the end whose mean loss is compared."""


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
    tried: Sequence[Mapping[str, Any]] = ()
    """See `tried_arms`."""

    def to_line(self, seed: int) -> str:
        orders = ", ".join(f"{count} {kind} {state}" for (kind, state), count in sorted(self.interventions.items()))
        return f"| {seed} | {self.policy} | {orders or 'none'} | {self.steps_lost} | {self.loss:.3f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unstable")
    parser.add_argument("--seed", type=int, action="append", help="default: 1, 2 and 3")
    parser.add_argument("--policy", action="append", help="default: none, palm and adaptive")
    parser.add_argument("--arms", type=Path, metavar="FILE", help="try the arms of `adaptive`, and append them to FILE")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="one store for all runs; default: one for each")
    parser.add_argument("--faults", type=int, default=0, metavar="N", help="the recipe of the drill, with N faults")
    parser.add_argument("--regret", type=Path, metavar="FILE", help="compare policies on tried arms")
    parser.add_argument("--sealed", type=int, default=21, metavar="SEED", help="seeds from here on teach nothing")
    options = parser.parse_args(arguments)
    if options.regret:
        print_regret(read(options.regret), options.sealed)
        return
    print("| seed | policy | interventions | steps trained again | mean loss of the last 400 steps |")
    print("|---|---|---|---|---|")
    for seed in options.seed or (1, 2, 3):
        recipe = load_recipe("unstable", [f"seed={seed}"])
        if options.faults:
            steps = FIRST_FAULT + options.faults * FAULT_INTERVAL
            recipe = load_recipe("drill", [f"seed={seed}", f"steps={steps}", "evaluate_windows=128"])
        for policy in options.policy or ("none", "palm", "adaptive"):
            with tempfile.TemporaryDirectory() as folder:
                tries = options.arms is not None and policy == "adaptive"
                job = Job(directory=Path(folder) / "run", faults=plan(options.faults), arms=math.inf if tries else None)
                result = measure(recipe, policy, options.store or Path(folder), job)
            print(result.to_line(seed), flush=True)
            if tries:
                with options.arms.open("a") as file:
                    file.write(json.dumps({"recipe": recipe.name, "seed": seed, "tried": result.tried}) + "\n")


def measure(recipe: Recipe, policy: str, store: Path, job: Job) -> Result:
    """One run of `recipe` with this policy, or without Lossguard if it is "none"."""
    run_id = f"{recipe.name}-{recipe.seed}-{policy}"
    if policy == "none":
        history, _ = run_strategy(recipe, replace(job, run=Run(id=run_id)))
        return Result(policy, final_loss(history), 0, Counter())
    store.mkdir(parents=True, exist_ok=True)
    with run_collector(store) as client, release_holds(client, run_id), set_policy(client, run_id, policy):
        history, _ = run_strategy(recipe, replace(job, run_id=run_id, mode="online", url=client.url))
        run = client.get(f"/runs/{run_id}")
    _, steps_lost, _ = rollback_costs([], history)
    orders = Counter((str(each["kind"]), str(each["state"])) for each in run["interventions"])
    return Result(policy, final_loss(history), steps_lost, orders, tried_arms(run))


@contextmanager
def set_policy(client: Client, run_id: str, policy: str) -> Iterator[None]:
    """Give the run this policy as soon as it is registered; it then holds for all but the first steps."""

    def wait_and_set() -> None:
        while not over.wait(0.05):
            with suppress(CollectorError):  # the run does not exist yet
                client.request("PUT", f"/runs/{run_id}/policy", {"name": policy, "mode": "auto"})
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


# Regret: what a policy's choices cost, incident by incident, above the best arm.


@dataclass(frozen=True, slots=True)
class Site:
    """A first attempt whose arms were tried."""

    recipe: str
    seed: int
    choices: Sequence[Choice]
    arms: Mapping[Arm, Mapping[str, Any]]

    @property
    def kind(self) -> IncidentKind:
        return IncidentKind(self.arms[Arm.WAIT]["kind"])

    def cost(self, arm: Arm, deeper: int = 0) -> float:
        """In steps: those trained again, and what the skipped batches are worth; if it did not get past, also those
        until that showed, and the cheapest arm that did."""
        window = self.arms[Arm.WAIT]["steps"]

        def own(each: Arm) -> float:
            found = self.arms[each]
            return float(found["steps"] - window + Policy().batch_cost * found["skipped"])

        past = [own(each) for each in self.arms if self.arms[each]["got_past"]]
        return own(arm) + deeper + (0.0 if self.arms[arm]["got_past"] else window + min(past, default=own(arm)))

    def loss(self, arm: Arm) -> float:
        """Nats above that of the best arm."""
        losses = {each: decode_number(found["loss"]) for each, found in self.arms.items()}
        finite = [loss for loss in losses.values() if loss is not None and math.isfinite(loss)]
        return (losses[arm] or 0.0) - min(finite, default=math.nan)


def read(file: Path) -> list[Site]:
    """The first attempts in the output of --arms."""
    found = []
    for run in map(json.loads, file.read_text().splitlines()):
        for each in run["tried"]:
            arms = {Arm(arm["arm"]): arm for arm in each["arms"]}
            if each["attempt"] == 1 and Arm.REWIND_AND_SKIP in arms:
                choices = [_choice(choice) for choice in each["choices"]]
                found.append(Site(run["recipe"], run["seed"], choices, arms))
    return found


def _choice(stored: Mapping[str, Any]) -> Choice:
    known = {name: value for name, value in stored.items() if name not in ("arm", "chance", "cost", "tried", "past")}
    return Choice(arm=Arm(stored["arm"]), **known)


def print_regret(sites: Sequence[Site], sealed: int) -> None:
    """Print the table of docs/drill.md. A seed that teaches is judged by the records of the others."""
    print("| recipe | seeds | incidents | policy | regret, steps | above `judged` | nats above best | as good |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe, name in product(sorted({site.recipe for site in sites}), ("learning", "sealed")):
        group = [site for site in sites if site.recipe == recipe and (site.seed >= sealed) is (name == "sealed")]
        judged: list[float] = []
        for policy in ("judged", "learnt", "palm", "never") if group else ():
            arms = [(site, *_chosen(policy, site, sites, sealed)) for site in group]
            regrets = [site.cost(arm, deeper) - min(map(site.cost, site.arms)) for site, arm, deeper in arms]
            judged = judged or regrets
            above = Estimate.of(map(sub, regrets, judged))
            steps = f"{statistics.fmean(regrets):.1f} | {above.mean:+.1f} +- {above.standard_error:.1f}"
            loss = statistics.fmean(site.loss(arm) for site, arm, _ in arms)
            nats, best = f"{loss:.4f}" if math.isfinite(loss) else "not finite", sum(each <= 0 for each in regrets)
            print(f"| {recipe} | {name} | {len(group)} | {policy} | {steps} | {nats} | {best} |")


def _chosen(policy: str, site: Site, sites: Sequence[Site], sealed: int) -> tuple[Arm, int]:
    """The arm that a policy would choose, and by how many steps its checkpoint lies deeper than the tried one."""
    if policy == "never":
        return Arm.WAIT, 0
    if policy == "palm":
        return Arm.REWIND_AND_SKIP, max(0, Policy().min_depth - int(site.arms[Arm.REWIND]["depth"]))
    others = [each for each in sites if each.recipe == site.recipe and each.seed < sealed and each.seed != site.seed]
    taught = [arm for each in others for arm in each.arms.values()]
    records = Records.of(taught) if policy == "learnt" else Records()
    choices = [
        replace(each, tried=records.tried(site.kind, each.arm, tier=each.tier, depth=each.depth))
        for each in site.choices
    ]
    rollback = min((each for each in choices if each.arm is not Arm.WAIT), key=lambda each: each.cost)
    remedy = site.arms.get(Arm.REWIND_WITH_REMEDY, {}).get("remedy")
    with_remedy = replace(rollback, arm=Arm.REWIND_WITH_REMEDY, remedy=remedy, prior=rollback.chance)
    where = {"tier": rollback.tier, "remedy": remedy}
    tried = records.tried(site.kind, Arm.REWIND_WITH_REMEDY, depth=rollback.depth, **where)
    waiting = [each for each in choices if each.arm is Arm.WAIT]
    learnt = [each for each in (*waiting, replace(with_remedy, tried=tried)) if each.tried.num >= MIN_ARMS]
    return min((rollback, *learnt), key=lambda each: each.cost).arm, 0


if __name__ == "__main__":
    main()
