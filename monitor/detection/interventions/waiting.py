"""Rules of all policies for waiting for a loss that may fall back on its own."""

from dataclasses import dataclass

from lossguard.vocabulary.states import IncidentKind
from lossguard.vocabulary.wording import plural, recovery_odds
from monitor.detection.incidents.recovery import MAX_ROWS
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.policy import Policy

HOPELESS_PROBABILITY = 0.2
"""Highest prior of a recovery without a rollback, once the rules of patience are over."""
ACT_PROBABILITY = 0.7
"""Probability that a spike lasts from which the policy stops waiting."""
MIN_WAIT_ROWS, MAX_WAIT_ROWS = 12, MAX_ROWS
"""Rows after its detection in which a spike is left alone: in a run whose spikes have not recovered by themselves yet,
and, below that probability, in one whose spikes have."""
EVEN_ODDS = 0.5
"""Probability that the loss recovers, where too little is known."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs in steps of training."""

    wait: float
    roll_back: float
    recovery_probability: float
    """Probability that the loss recovers without a rollback."""

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
    p = EVEN_ODDS if now.lasting_probability is None else 1.0 - now.lasting_probability
    p = 0.0 if now.non_finite else p
    recovery_steps = max(now.step - now.detected_step, policy.patience)
    return Costs(p * recovery_steps + (1 - p) * (policy.patience + roll_back), roll_back, p)


def too_early(now: Situation) -> list[str] | None:
    """Return why nothing is done yet, whatever waiting costs; or None."""
    rows = now.falls + now.rises
    if not now.sure:
        return ["The evidence is enough for an incident and not for an action."]
    if now.non_finite:
        return None
    lasting = now.lasting_probability
    odds = [] if lasting is None else [f"It does {recovery_odds(lasting)}."]
    if lasting is None or not now.others_recovered:
        may_wait = now.kind is IncidentKind.LOSS_SPIKE and rows < MIN_WAIT_ROWS
        return [f"A loss spike gets {MIN_WAIT_ROWS} rows to recover by itself.", *odds] if may_wait else None
    if rows > MAX_WAIT_ROWS or lasting >= ACT_PROBABILITY:
        return None
    return ["Spikes of this run have recovered by themselves, and this one may.", *odds]


def reason_to_act(policy: Policy, now: Situation) -> str | None:
    """The reason to stop waiting, or None."""
    if now.non_finite:
        return "A signal is not finite, so waiting cannot help."
    if not now.loss_moved or too_early(now) is not None:
        return None
    if now.kind is IncidentKind.DIVERGENCE:
        return (
            f"The loss has been rising since step {now.onset_step}; a divergence does not recover without a rollback."
        )
    lasting = now.lasting_probability or 0.0
    if now.kind is IncidentKind.LOSS_SPIKE and now.excess > 0 and lasting >= ACT_PROBABILITY:
        rows, odds = plural(now.falls + now.rises, "row"), recovery_odds(lasting)
        return f"After {rows} the spike recovers by itself {odds}: the policy stops waiting."
    if now.rising_rows >= policy.rise_rows:
        return f"The loss rose on {now.rising_rows} consecutive rows: it is not falling back."
    waited = now.step - now.check_step
    if waited >= policy.patience and now.excess > 0.5 * now.check_excess:
        return (
            f"In {plural(waited, 'step')} the excess over the expected loss went from {now.check_excess:.3g} to "
            f"{now.excess:.3g} nats: it did not halve, so the policy stops waiting."
        )
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
        return Decision(None, reasons=early, afterwards="Nothing was done: it was over before that.")
    reason = "The loss may still fall back." if now.loss_moved else "The loss has not moved: save a checkpoint now."
    condition = "the loss could still fall back" if now.loss_moved else "the loss had not moved"
    afterwards = f"Nothing was done: {condition}. {price.describe('was')}"
    return Decision(None, reasons=[reason, price.describe()], afterwards=afterwards)


def budget_reason(now: Situation) -> str:
    """Return why a run that needs a rollback is held instead."""
    return f"The run has used up its budget of {plural(now.rollbacks_used, 'rollback')}."
