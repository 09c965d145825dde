"""The effect of a drill's faults on a run: from the logged steps, in the order of time, to one result per fault.

Steps are optimizer steps, losses are in nats per token. `detected_after`, `action` and `recurred` repeat what Lossguard
reported; whether a fault hurt, and whether the run got past it, is measured on the losses.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trainer.faults import FAULTS, Fault

STEPS_BEFORE = 25
"""Steps before a fault; their mean loss is the normal one."""
STEPS_AFTER = 30
"""Steps after the last batch of a fault in which it may have an effect."""
MEAN_STEPS = 5
"""Steps over which the loss is averaged: one hard batch does not hurt."""
HURT_RATIO = 1.10
"""A fault hurt if the mean loss rose above this multiple of the normal loss, or a metric was not finite."""
RECOVERY_RATIO = 1.05
"""The run got past the fault if its held-out loss before the next fault is at most this multiple of the clean run's."""


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """One finished step."""

    step: int
    batch_index: int
    loss: float
    finite: bool = True
    """True if loss, gradient norm and log Z are: an order may come before the loss shows the effect of the gradient."""
    held_out: float | None = None
    """Held-out loss after the step, if it was evaluated: on the same text in every run."""
    skipped: bool = False
    """True if the gate skipped its update."""


@dataclass(frozen=True, slots=True)
class FaultResult:
    """The effect of one fault. The field names are those of the drill's JSON output."""

    fault: str
    step: int
    hurt: bool
    detected_after: int | None
    """Steps from the fault to the detection of the first incident; None: nothing was detected."""
    action: str
    rollbacks: int
    steps_lost: int
    """Steps that were trained and then discarded."""
    batches_skipped: int
    recurred: bool
    """True if an intervention failed and another followed."""
    got_past: bool
    """True if the run recovered from it, or it did not hurt."""
    held_out: float
    """The last held-out loss before the next fault; NaN if there is none."""
    clean_held_out: float
    """The clean run's held-out loss at the same step."""
    updates_skipped: int = 0
    """Updates that the gate skipped."""


def fault_results(
    faults: Sequence[Fault],
    history: Sequence[LoggedStep],
    clean: Mapping[int, float],
    incidents: Sequence[Mapping[str, Any]] = (),
    interventions: Sequence[Mapping[str, Any]] = (),
) -> list[FaultResult]:
    """One result per fault, ordered by step. `clean`: step -> held-out loss of the run without faults."""
    faults = sorted(faults, key=lambda fault: fault.step)
    first = {each.step: place for place, each in reversed(list(enumerate(history)))}
    places = [first[fault.step] for fault in faults] + [len(history)]
    bounds = [fault.step for fault in faults] + [math.inf]
    results = []
    for number, fault in enumerate(faults):
        earlier, steps = history[: places[number]], history[places[number] : places[number + 1]]
        own = [each for each in incidents if bounds[number] <= each["detected_step"] < bounds[number + 1]]
        numbers = {each["number"] for each in own}
        done = [each for each in interventions if each["incident"] in numbers]
        evaluated = ((each.step, each.held_out) for each in reversed(steps) if each.held_out is not None)
        step, held_out = next(evaluated, (0, math.nan))
        clean_held_out = clean.get(step, math.nan)
        rollbacks, steps_lost, batches_skipped = rollback_costs(earlier, steps)
        hurt = did_hurt(fault, earlier, steps)
        result = FaultResult(
            fault=fault.kind,
            step=fault.step,
            hurt=hurt,
            detected_after=min((each["detected_step"] - fault.step for each in own), default=None),
            action=_action(done, rollbacks),
            rollbacks=rollbacks,
            steps_lost=steps_lost,
            batches_skipped=batches_skipped,
            recurred=rollbacks > 1 or any(each["state"] == "recurred" for each in done),
            got_past=not hurt or held_out <= RECOVERY_RATIO * clean_held_out,
            held_out=held_out,
            clean_held_out=clean_held_out,
            updates_skipped=sum(each.skipped for each in steps),
        )
        results.append(result)
    return results


def did_hurt(fault: Fault, earlier: Sequence[LoggedStep], steps: Sequence[LoggedStep]) -> bool:
    """Return True if the fault hurt in the first pass, before any rollback."""
    num_steps = fault.count if FAULTS[fault.kind].on_data is not None or FAULTS[fault.kind].lr_factor != 1 else 1
    first_pass = [steps[0]]
    for before, each in pairwise(steps[: num_steps + STEPS_AFTER]):
        if each.step <= before.step:
            break
        first_pass.append(each)
    losses = [each.loss for each in first_pass]
    if not all(each.finite and math.isfinite(each.loss) for each in first_pass):
        return True
    normal = statistics.fmean(each.loss for each in earlier[-STEPS_BEFORE:])
    windows = [losses[start : start + MEAN_STEPS] for start in range(max(1, len(losses) - MEAN_STEPS + 1))]
    return max(map(statistics.fmean, windows)) > HURT_RATIO * normal


def rollback_costs(earlier: Sequence[LoggedStep], steps: Sequence[LoggedStep]) -> tuple[int, int, int]:
    """(number of rollbacks, steps lost, batches skipped) of these steps, which come after `earlier`."""
    rollbacks = steps_lost = 0
    last = earlier[-1].step if earlier else -1
    for each in steps:
        if each.step <= last:
            rollbacks += 1
            steps_lost += last + 1 - each.step
        last = each.step
    return rollbacks, steps_lost, _skipped_so_far(steps) - _skipped_so_far(earlier)


def _skipped_so_far(history: Sequence[LoggedStep]) -> int:
    """Batches that the run has jumped over: each step uses one batch."""
    return history[-1].batch_index - history[-1].step if history else 0


def _action(interventions: Sequence[Mapping[str, Any]], rollbacks: int) -> str:
    if any(each["kind"] == "hold" for each in interventions):
        return "held for an operator"
    return "none" if not rollbacks else "rolled back" if rollbacks == 1 else f"rolled back {rollbacks} times"
