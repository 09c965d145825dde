"""The drill: faults injected in one run; how Lossguard, other strategies and a clean run compare.

    python -m trainer drill --faults 20 [--seed 1 --seed 2] [--json]

All runs have the same seed, steps and faults. Each fault strikes at its step, whatever batches were skipped before.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lossguard import Run
from trainer.config import Recipe
from trainer.conversion import encoded
from trainer.display import print_table, wide_console
from trainer.drill.collector import release_holds, run_collector
from trainer.drill.fault_results import FaultResult, LoggedStep, fault_results
from trainer.drill.strategies import FixedPalm, SkipStep
from trainer.errors import UsageError
from trainer.faults import FAULTS, Fault
from trainer.measurement.evaluation import HeldOutLoss
from trainer.train import Job, train

FIRST_FAULT = 300
"""Step of the first fault: the detectors have warmed up, and a rollback has enough checkpoints."""
FAULT_INTERVAL = 250
"""Steps between two faults: enough to verify an intervention before the next fault."""
EVALUATION_INTERVAL = 50
"""Steps between two held-out losses. Divides FIRST_FAULT and FAULT_INTERVAL: one is just before each fault."""
MIN_STEP_SECONDS = 0.015
"""Minimum seconds of a step that a collector monitors: real steps are longer, and an order is some steps late."""
KINDS = (
    "corrupted_batches",
    "bit_flip",
    "repeated_ngram",
    "nan_gradient",
    "label_shuffle",
    "lr_kick",
    "moment_flip",
    "random_targets",
    "lost_second_moments",
)
"""Injected in this order, repeatedly. Kinds that do not hurt a model of this size are left out; see docs/drill.md."""


@dataclass(kw_only=True, slots=True)
class DrillResult:
    """The results of one seed."""

    seed: int
    steps: int
    fault_results: list[FaultResult]
    held_out: dict[str, HeldOutLoss] = field(default_factory=dict)
    """Strategy -> the last evaluation; `clean` is the run without faults."""
    gate_results: list[FaultResult] = field(default_factory=list)
    """Results of the run with the gate, if there was one."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """The interventions of which the run has tried the arms: see `tried_arms`."""

    @property
    def hurt(self) -> int:
        """Number of faults that hurt."""
        return sum(each.hurt for each in self.fault_results)

    @property
    def got_past(self) -> int:
        """Number of faults that hurt and that the run got past."""
        return sum(each.hurt and each.got_past for each in self.fault_results)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON. Losses are by strategy, in nats; `difference`: to the clean run's."""
        held_out, clean = self.held_out.items(), self.held_out["clean"]
        result: dict[str, Any] = {
            "seed": self.seed,
            "steps": self.steps,
            "hurt": self.hurt,
            "got_past": self.got_past,
            "held_out_loss": {name: each.mean for name, each in held_out},
            "held_out_loss_se": {name: each.standard_error for name, each in held_out},
            "held_out_difference_se": {name: each.minus(clean)[1] for name, each in held_out if each is not clean},
            "faults": self.fault_results,
        }
        result |= {"gate_faults": self.gate_results} if self.gate_results else {}
        result |= {"tried": self.tried} if self.tried else {}
        as_json: dict[str, Any] = encoded(result)
        return as_json


def plan(num_faults: int) -> list[Fault]:
    """The faults of a drill, one kind after the other."""
    kinds = [KINDS[number % len(KINDS)] for number in range(num_faults)]
    return [Fault(kind, FIRST_FAULT + number * FAULT_INTERVAL, FAULTS[kind].count) for number, kind in enumerate(kinds)]


def drill(
    recipe: Recipe,
    num_faults: int,
    folder: Path,
    *,
    checkpoints: str | None = None,
    compare: bool,
    gate: bool = False,
    arms: bool = False,
    report: Callable[[str], None],
) -> DrillResult:
    """Run all strategies, one after the other; `report` gets progress messages. Raises UsageError and Stopped.

    `checkpoints`: where those of all runs are kept (see Job); `gate`: also Lossguard with the gate; `arms`: Lossguard
    tries the arms of every rollback; `compare`: also those that are not Lossguard's.
    """
    if recipe.data.held_out == 0.0:
        raise UsageError("data.held_out = 0.0 cannot be used in a drill, which compares held-out losses.")
    faults = plan(num_faults)
    steps = FIRST_FAULT + num_faults * FAULT_INTERVAL
    recipe = replace(recipe, steps=steps, evaluate_every=EVALUATION_INTERVAL)
    held_out: dict[str, HeldOutLoss] = {}
    everywhere: dict[str, Any] = {"faults": faults, "checkpoints": checkpoints}

    def run(name: str, **job: Any) -> list[LoggedStep]:
        report(f"seed {recipe.seed}: {name}, {steps} steps")
        history, last = run_strategy(recipe, Job(directory=folder / name, **(everywhere | job)))
        assert last is not None
        held_out[name] = last
        return history

    clean = run("clean", faults=[], run=Run(id="clean"))
    clean_losses = {each.step: each.held_out for each in clean if each.held_out is not None}

    def guarded(name: str, **job: Any) -> list[FaultResult]:
        history = run(name, run_id=name, mode="online", url=client.url, **job)
        incidents = client.get(f"/runs/{name}/incidents")
        return fault_results(faults, history, clean_losses, incidents, client.get(f"/runs/{name}")["interventions"])

    with run_collector(folder) as client:
        with release_holds(client, "lossguard"):
            results = guarded("lossguard", arms=math.inf if arms else None)
        result = DrillResult(seed=recipe.seed, steps=steps, fault_results=results, held_out=held_out)
        result.tried = tried_arms(client.get("/runs/lossguard"))
        report(f"seed {result.seed}: got past {result.got_past} of {result.hurt} faults that hurt")
        if gate:
            with release_holds(client, "gate"):
                result.gate_results = guarded("gate", gate=True)
    if compare:
        run("nothing", run=Run(id="nothing"))
        run("skip_step", run=Run(id="skip_step"), accepts=SkipStep())
        run("fixed_palm", run=FixedPalm(budget=3 * num_faults))
    return result


def tried_arms(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The interventions of a run, as the collector shows it, whose arms were tried: with what was compared before, and
    what came out."""
    found = []
    for each in run["interventions"]:
        arms = [arm["details"] for arm in run["arms"] if arm["intervention"] == each["number"]]
        names = ("number", "incident", "attempt", "rewind_to", "skip_from", "skip_to", "remedies")
        if arms:
            found.append({name: each[name] for name in names} | {"choices": each["details"]["choices"], "arms": arms})
    return found


def run_strategy(recipe: Recipe, job: Job) -> tuple[list[LoggedStep], HeldOutLoss | None]:
    """Train; return all steps in the order of time, and the last evaluation, if there was one.

    Raises Stopped when a signal ended the run.
    """
    history: list[LoggedStep] = []
    min_seconds = MIN_STEP_SECONDS if job.url else 0.0
    began = time.perf_counter()

    def note(step: int, batch_index: int, metrics: dict[str, float]) -> None:
        nonlocal began
        finite = all(math.isfinite(metrics[name]) for name in ("loss", "grad_norm", "log_z"))
        held_out, skipped = metrics.get("held_out_loss"), metrics.get("skipped", 0.0) > 0
        history.append(LoggedStep(step, batch_index, metrics["loss"], finite, held_out, skipped))
        time.sleep(max(0.0, began + min_seconds - time.perf_counter()))
        began = time.perf_counter()

    result = train(recipe, replace(job, faults_at_steps=True, on_step=note, quiet=True)).complete()
    return history, result.held_out


def succeeded(drills: Sequence[DrillResult]) -> bool:
    """Return True if the run got past every fault that hurt."""
    return all(each.got_past == each.hurt for each in drills)


def summary(drills: Sequence[DrillResult]) -> dict[str, Any]:
    """The JSON object that a drill prints."""
    hurt, got_past = sum(each.hurt for each in drills), sum(each.got_past for each in drills)
    injected = sum(len(each.fault_results) for each in drills)
    counts = {"planted": injected, "hurt": hurt, "got_past": got_past}
    return counts | {"succeeded": succeeded(drills), "seeds": [each.to_dict() for each in drills]}


# The table in the terminal.

COLUMNS = ("step", "fault", "hurt", "detected after", "action", "steps lost", "batches skipped", "recurred", "got past")


def show_drill(drill: DrillResult) -> None:
    """One row per fault, then the held-out loss of every strategy compared with the clean run's."""
    console = wide_console()
    title = f"seed {drill.seed}: got past {drill.got_past} of {drill.hurt} faults that hurt"
    print_table(console, COLUMNS, map(_row, drill.fault_results), title)
    if drill.gate_results:
        hurt = [each for each in drill.gate_results if each.hurt]
        title = f"with the gate: got past {sum(each.got_past for each in hurt)} of {len(hurt)} faults that hurt"
        rows = [[*_row(each), str(each.updates_skipped)] for each in drill.gate_results]
        print_table(console, (*COLUMNS, "updates skipped"), rows, title)
    clean = drill.held_out["clean"]
    for strategy, loss in drill.held_out.items():
        sentence = f"held-out loss, {strategy}: {loss.mean:.4f} +- {loss.standard_error:.4f} nats per token"
        if loss is not clean:
            difference, error = loss.minus(clean)
            sentence += f", minus clean {difference:+.4f} +- {error:.4f} ({100 * (loss.mean / clean.mean - 1):+.2f} %)"
        console.print(sentence)


def _row(result: FaultResult) -> list[str]:
    hurt, recurred = ("yes" if is_so else "" for is_so in (result.hurt, result.recurred))
    detected = "" if result.detected_after is None else str(result.detected_after)
    counts = str(result.steps_lost), str(result.batches_skipped)
    got_past = "yes" if result.got_past else "NO"
    return [str(result.step), result.fault, hurt, detected, result.action, *counts, recurred, got_past]
