"""What a drill's faults did to a run: from what was logged in the order of time to one verdict a fault.

Steps are optimizer steps, losses nats per token. Lossguard's own opinion enters only where it is reported
(`detected_after`, `action`, `recurred`): whether a fault hurt, and was got past, is measured on the losses.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trainer.faults import FAULTS, Fault

BEFORE = 25
"""Steps before a fault, whose mean loss is what it was."""
AFTER = 30
"""Steps after its last batch in which a fault may show."""
ROW = 5
"""Steps whose mean is looked at, so that one hard batch is no hurt."""
HURTS = 1.10
"""A fault hurt when the mean of a few steps rose above so many times what it was, or a number was not finite."""
PAST = 1.05
"""It was got past when the held-out loss, before the next fault, is at most so many times that of the clean run."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One finished step."""

    step: int
    batch_index: int
    loss: float
    finite: bool = True
    """Whether loss, gradient norm and log Z all are: an order may come before the loss shows what the norm did."""
    held_out: float | None = None
    """Held-out loss after it, where it was evaluated: on the same text in every arm, whatever batches were skipped."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one fault."""

    fault: str
    step: int
    hurt: bool
    detected_after: int | None
    """Steps from the fault to the first incident's detection; None: nothing was detected."""
    action: str
    rollbacks: int
    steps_lost: int
    """Steps that were trained and then left behind."""
    batches_skipped: int
    recurred: bool
    """Whether an intervention did not hold and another followed."""
    got_past: bool
    held_out: float
    """The last held-out loss before the next fault; NaN where there is none."""
    clean_held_out: float
    """The clean run's at the same step."""


def judge(
    faults: Sequence[Fault],
    history: Sequence[Logged],
    clean: Mapping[int, float],
    incidents: Sequence[Mapping[str, Any]] = (),
    interventions: Sequence[Mapping[str, Any]] = (),
) -> list[Verdict]:
    """One verdict a fault, in the order of their steps. `clean`: step -> held-out loss of the run without faults."""
    faults = sorted(faults, key=lambda fault: fault.step)
    first = {each.step: place for place, each in reversed(list(enumerate(history)))}
    places = [first[fault.step] for fault in faults] + [len(history)]
    bounds = [fault.step for fault in faults] + [math.inf]
    verdicts = []
    for number, fault in enumerate(faults):
        stretch = history[places[number] : places[number + 1]]
        seen = [each for each in incidents if bounds[number] <= each["detected_step"] < bounds[number + 1]]
        numbers = {each["number"] for each in seen}
        done = [each for each in interventions if each["incident"] in numbers]
        verdicts.append(_verdict(fault, history[: places[number]], stretch, clean, seen, done))
    return verdicts


def _verdict(
    fault: Fault,
    earlier: Sequence[Logged],
    stretch: Sequence[Logged],
    clean: Mapping[int, float],
    incidents: Sequence[Mapping[str, Any]],
    interventions: Sequence[Mapping[str, Any]],
) -> Verdict:
    step, held_out = next(
        ((each.step, each.held_out) for each in reversed(stretch) if each.held_out is not None), (0, math.nan)
    )
    clean_held_out = clean.get(step, math.nan)
    rollbacks, steps_lost, batches_skipped = _went_back(earlier, stretch)
    hurt = did_hurt(fault, earlier, stretch)
    detected = min((each["detected_step"] for each in incidents), default=None)
    return Verdict(
        fault=fault.kind,
        step=fault.step,
        hurt=hurt,
        detected_after=None if detected is None else detected - fault.step,
        action=_action(interventions, rollbacks),
        rollbacks=rollbacks,
        steps_lost=steps_lost,
        batches_skipped=batches_skipped,
        recurred=rollbacks > 1 or any(each["state"] == "recurred" for each in interventions),
        got_past=not hurt or held_out <= PAST * clean_held_out,
        held_out=held_out,
        clean_held_out=clean_held_out,
    )


def did_hurt(fault: Fault, earlier: Sequence[Logged], stretch: Sequence[Logged]) -> bool:
    """Looks at the first pass alone, up to a rollback."""
    lasts = fault.count if FAULTS[fault.kind].on_data is not None or FAULTS[fault.kind].lr_factor != 1 else 1
    shown = [stretch[0]]
    for before, each in pairwise(stretch[: lasts + AFTER]):
        if each.step <= before.step:
            break
        shown.append(each)
    losses = [each.loss for each in shown]
    if not all(each.finite and math.isfinite(each.loss) for each in shown):
        return True
    usual = statistics.fmean(each.loss for each in earlier[-BEFORE:])
    rows = [losses[start : start + ROW] for start in range(max(1, len(losses) - ROW + 1))]
    return max(map(statistics.fmean, rows)) > HURTS * usual


def _went_back(earlier: Sequence[Logged], stretch: Sequence[Logged]) -> tuple[int, int, int]:
    """Rollbacks, steps lost, and batches skipped by them."""
    batch_of = {each.step: each.batch_index for each in earlier}
    rollbacks = steps_lost = skipped = 0
    last = earlier[-1].step if earlier else -1
    for each in stretch:
        if each.step <= last:
            rollbacks += 1
            steps_lost += last + 1 - each.step
            skipped += each.batch_index - batch_of[each.step]
        batch_of[each.step] = each.batch_index
        last = each.step
    return rollbacks, steps_lost, skipped


def _action(interventions: Sequence[Mapping[str, Any]], rollbacks: int) -> str:
    if any(each["kind"] == "hold" for each in interventions):
        return "held for a person"
    return "none" if not rollbacks else "rolled back" if rollbacks == 1 else f"rolled back {rollbacks} times"
