"""The drill: faults planted along one run, and what Lossguard makes of them beside other rules and a clean run.

    python -m trainer drill --faults 20 [--seed 1 --seed 2] [--json]

All arms have the same seed, steps and faults, each fault at its step whatever batches were skipped before.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lossguard import Run
from lossguard.protocol import encode_number
from trainer.config import Recipe
from trainer.drill.arms import FixedPalm, SkipStep
from trainer.drill.collector import ask, collector, releasing
from trainer.drill.judging import Logged, Verdict, judge
from trainer.errors import Stopped
from trainer.faults import FAULTS, Fault
from trainer.train import Job, train

FIRST = 300
"""Step of the first fault: the detectors have warmed up, and a rollback finds its depth."""
GAP = 250
"""Steps between two faults, so that each intervention can be verified before the next."""
EVALUATE = 50
"""Steps between two held-out losses. Divides FIRST and GAP: there is one just before each fault, and one at the end."""
PACE = 0.015
"""Seconds of a step, at least, where a collector watches: real steps are longer, and an order comes some steps late."""
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
"""In turn. The kinds that do not hurt a model of this size are left out; docs/drill.md has the figures."""


@dataclass(kw_only=True, slots=True)
class Drill:
    """The results of one seed."""

    seed: int
    steps: int
    verdicts: list[Verdict]
    held_out: dict[str, float] = field(default_factory=dict)
    """Arm -> held-out loss at the end, nats per token; `clean` is the run without faults."""

    @property
    def hurt(self) -> int:
        return sum(verdict.hurt for verdict in self.verdicts)

    @property
    def got_past(self) -> int:
        return sum(verdict.hurt and verdict.got_past for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        verdicts = [
            {name: encode_number(value) if isinstance(value, float) else value for name, value in asdict(each).items()}
            for each in self.verdicts
        ]
        held_out = {arm: encode_number(loss) for arm, loss in self.held_out.items()}
        counts = {"hurt": self.hurt, "got_past": self.got_past}
        return {"seed": self.seed, "steps": self.steps, **counts, "held_out_loss": held_out, "faults": verdicts}


def plan(num_faults: int) -> list[Fault]:
    """So many faults, the kinds in turn."""
    kinds = [KINDS[number % len(KINDS)] for number in range(num_faults)]
    return [Fault(kind, FIRST + number * GAP, FAULTS[kind].count) for number, kind in enumerate(kinds)]


def drill(recipe: Recipe, num_faults: int, folder: Path, *, compare: bool, tell: Callable[[str], None]) -> Drill:
    """Run all arms one after the other; `tell` hears which. Raises UserMistake and Stopped."""
    faults = plan(num_faults)
    steps = FIRST + num_faults * GAP
    recipe = replace(recipe, steps=steps, evaluate_every=EVALUATE)
    held_out: dict[str, float] = {}

    def arm(name: str, **job: Any) -> list[Logged]:
        tell(f"seed {recipe.seed}: {name}, {steps} steps")
        history, held_out[name] = run_arm(recipe, Job(directory=folder / name, **({"faults": faults} | job)))
        return history

    clean = arm("clean", faults=[], run=Run(id="clean"))
    with collector(folder) as url, releasing(url, "lossguard"):
        guarded = arm("lossguard", run_id="lossguard", mode="online", url=url)
        incidents = ask(url, "/runs/lossguard/incidents")
        interventions = ask(url, "/runs/lossguard")["interventions"]
    healthy = {each.step: each.held_out for each in clean if each.held_out is not None}
    verdicts = judge(faults, guarded, healthy, incidents, interventions)
    result = Drill(seed=recipe.seed, steps=steps, verdicts=verdicts, held_out=held_out)
    tell(f"seed {result.seed}: {result.got_past} of {result.hurt} faults that hurt were got past")
    if compare:
        arm("nothing", run=Run(id="nothing"))
        arm("skip_step", run=Run(id="skip_step"), accepts=SkipStep())
        arm("fixed_palm", run=FixedPalm(id="fixed_palm", budget=3 * num_faults))
    return result


def run_arm(recipe: Recipe, job: Job) -> tuple[list[Logged], float]:
    """Train, and return every step in the order of time and the held-out loss at the end (NaN when there is none).

    Raises Stopped when a signal ended it.
    """
    history: list[Logged] = []
    pace = PACE if job.url else 0.0
    began = time.perf_counter()

    def note(step: int, batch_index: int, metrics: dict[str, float]) -> None:
        nonlocal began
        finite = all(math.isfinite(metrics[name]) for name in ("loss", "grad_norm", "log_z"))
        history.append(Logged(step, batch_index, metrics["loss"], finite, metrics.get("held_out_loss")))
        time.sleep(max(0.0, began + pace - time.perf_counter()))
        began = time.perf_counter()

    outcome = train(recipe, replace(job, faults_at_steps=True, on_step=note, quiet=True))
    if outcome.interrupted_by is not None:
        raise Stopped(outcome.interrupted_by)
    last = history[-1].held_out
    return history, math.nan if last is None else last


def succeeded(drills: Sequence[Drill]) -> bool:
    """Whether every fault that hurt was got past."""
    return all(each.got_past == each.hurt for each in drills)


def summary(drills: Sequence[Drill]) -> dict[str, Any]:
    """The drill's one JSON object."""
    hurt, got_past = sum(each.hurt for each in drills), sum(each.got_past for each in drills)
    planted = sum(len(each.verdicts) for each in drills)
    counts = {"planted": planted, "hurt": hurt, "got_past": got_past}
    return counts | {"succeeded": succeeded(drills), "seeds": [each.to_dict() for each in drills]}
