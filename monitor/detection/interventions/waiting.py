"""Whether to wait for a loss that may fall back on its own. All policies share these rules."""

from dataclasses import dataclass

from lossguard.vocabulary.states import IncidentKind
from lossguard.vocabulary.wording import plural
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.policy import Policy

HOPELESS_PROBABILITY = 0.2
"""Of a recovery without a rollback: below it, the policy stops waiting once waiting costs more."""

MIN_WAIT_ROWS, MAX_WAIT_ROWS = 12, 56
"""Rows after its detection that a loss spike gets to recover by itself."""
WAIT_FACTOR = 3
"""A spike gets this multiple of the rows in which spikes of the run have recovered so far."""


@dataclass(frozen=True, slots=True)
class Costs:
    """In steps of training."""

    wait: float
    roll_back: float
    recovery_probability: float
    """That the loss recovers without a rollback (rule of succession over the rows seen)."""

    def describe(self, verb: str = "is") -> str:
        return (
            f"Waiting {verb} expected to cost {self.wait:.0f} steps "
            f"(probability of recovery {self.recovery_probability:.2f}), rolling back {self.roll_back:.0f}."
        )


def costs(policy: Policy, now: Situation, roll_back: float) -> Costs:
    """Expected cost of one more span of patience against that of rolling back now, which costs `roll_back` steps.

    Waiting: with probability p the loss recovers after as long as it has been out of band, and those steps trained
    nothing; otherwise the patience is lost and the rollback comes on top.
    """
    p = 0.0 if now.non_finite else (now.falls + 1) / (now.falls + now.rises + 2)
    recovery_steps = max(now.step - now.detected_step, policy.patience)
    return Costs(p * recovery_steps + (1 - p) * (policy.patience + roll_back), roll_back, p)


def too_early(now: Situation) -> str | None:
    """Why nothing is done yet, whatever waiting costs; or None."""
    if not now.sure:
        return "The evidence is enough for an incident and not for an action."
    rows = rows_to_wait(now)
    if now.non_finite or now.falls + now.rises >= rows:
        return None
    if not now.rows_to_recover:
        return f"A loss spike gets {rows} rows to recover by itself."
    longest = plural(now.rows_to_recover, "row")
    return f"Spikes of this run have recovered by themselves in up to {longest}: this one gets {rows}."


def rows_to_wait(now: Situation) -> int:
    """Rows after its detection in which a spike is left alone; one that rises on and on only where others came back."""
    least = MIN_WAIT_ROWS if now.kind is IncidentKind.LOSS_SPIKE else 0
    return min(max(least, WAIT_FACTOR * now.rows_to_recover), MAX_WAIT_ROWS)


def reason_to_act(policy: Policy, now: Situation, price: Costs) -> str | None:
    """The reason to stop waiting, or None."""
    if now.non_finite:
        return "A signal is not finite, so waiting cannot help."
    if not now.loss_moved or too_early(now) is not None:
        return None
    if now.kind is IncidentKind.DIVERGENCE:
        return (
            f"The loss has been rising since step {now.onset_step}; a divergence does not recover without a rollback."
        )
    if now.rising_rows >= policy.rise_rows:
        return f"The loss rose on {now.rising_rows} consecutive rows: it is not falling back."
    waited = now.step - now.check_step
    if waited >= policy.patience and now.excess > 0.5 * now.check_excess:
        return (
            f"In {plural(waited, 'step')} the excess over the expected loss went from {now.check_excess:.3g} to "
            f"{now.excess:.3g} nats: it did not halve, so the policy stops waiting."
        )
    if price.recovery_probability < HOPELESS_PROBABILITY and price.wait > price.roll_back:
        return "Waiting is now expected to cost more than rolling back."
    return None


def why(reason: str, price: Costs) -> list[str]:
    """The reason to act, and the costs unless they spoke for waiting: they did not decide then."""
    return [reason, price.describe()] if price.wait >= price.roll_back else [reason]


def wait(now: Situation, price: Costs) -> Decision:
    """The decision to wait, with its reasons."""
    if now.kind is IncidentKind.LOSS_COLLAPSE:
        reason = "The loss is too low to be true, not too high: a rollback would not help. Look at the data."
        return Decision(None, reasons=[reason], afterwards="Nothing was done: a low loss asks for a look at the data.")
    if now.loss_moved and (early := too_early(now)) is not None:
        return Decision(None, reasons=[early], afterwards="Nothing was done: it was over before that.")
    reason = "The loss may still fall back." if now.loss_moved else "The loss has not moved: save a checkpoint now."
    condition = "the loss could still fall back" if now.loss_moved else "the loss had not moved"
    afterwards = f"Nothing was done: {condition}. {price.describe('was')}"
    return Decision(None, reasons=[reason, price.describe()], afterwards=afterwards)


def budget_reason(now: Situation) -> str:
    """Why a run that needs a rollback is held instead."""
    return f"The run has used up its budget of {plural(now.rollbacks_used, 'rollback')}."
