"""Rules of all policies: when to wait for a loss that may fall back, when to give up, and what a trainer refuses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.states import IncidentKind, OrderKind, Refusal
from lossguard.vocabulary.wording import plural, recovery_odds
from monitor.detection.effects import Intervention
from monitor.detection.incidents.recovery import MAX_ROWS
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.restorable import RestorableStep
from monitor.detection.settings import Mode, Policy, WhenStructural

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


NO_ANSWER = (
    "The data of this run does not repeat, so no batch can be left out, and there is no remedy that was not tried here"
)
"""Clause that says why a run whose data does not repeat is not rewound again."""
MAX_SHOWN = 8
"""Attempts that a verdict lists, the newest."""


def evidence(now: Situation) -> str:
    """Return the attempts at the site as a sentence; empty without attempts."""
    if not now.attempts:
        return ""
    num_left_out = max(len(now.attempts) - MAX_SHOWN, 0)
    listed = [f"{num_left_out} earlier ones"] if num_left_out else []
    listed += [each.describe() for each in now.attempts[-MAX_SHOWN:]]
    return f"None of these rollbacks got past it: {'; '.join(listed)}."


def all_failed(max_attempts: int) -> str:
    """Return the failure of all attempts as a clause."""
    attempts = "The only attempt" if max_attempts == 1 else f"All {max_attempts} attempts"
    return f"{attempts} at this site failed"


def give_up(policy: Policy, now: Situation, reasons: list[str], why: str) -> Decision:
    """Hold the run or let it go on, as the policy says. `why`: a clause that gives the reason."""
    shown = [*reasons, *filter(None, [evidence(now)])]
    if policy.when_structural is WhenStructural.HOLD:
        return Decision(OrderKind.HOLD, reasons=[*shown, f"{why}, so a person must decide."])
    verdict = f"{why}; the run goes on, as when_structural in the policy says."
    return Decision(None, reasons=[*shown, verdict], is_final=True)


NOTHING_MORE = "The policy orders nothing more for this incident"


def with_limits(
    decision: Decision, limits: Limits, now: Situation, restorable: Sequence[RestorableStep], policy: Policy
) -> Decision:
    """The decision with a sentence for each limit of the trainer that shaped it. `restorable`: all checkpoints.

    A skip that did not help as wide as the limit permits is not tried again elsewhere: a person must decide.
    """
    step, reasons = now.step, []
    kind = decision.kind or decision.unavailable
    too_deep = [each.step for each in restorable if limits.too_deep(step, each.step) is not None]
    if too_deep and kind is OrderKind.HOLD:
        reasons.append(
            f"The trainer's limit max_depth={limits.max_depth} rules out the checkpoints up to step {max(too_deep)}."
        )
    width = 0 if decision.skip_from is None or decision.skip_to is None else decision.skip_to - decision.skip_from
    if limits.max_skip is not None and (
        kind is OrderKind.HOLD or (kind is OrderKind.ROLLBACK and width >= limits.max_skip)
    ):
        wider = "wider skip" if limits.max_skip else "skip"
        reasons.append(f"The trainer's limit max_skip={limits.max_skip} permits no {wider}.")
        if width and any(0 < each.num_skipped >= limits.max_skip for each in now.attempts):
            why = f"{reasons[-1]} One as wide did not help: a person must decide."
            if _holds(policy):
                return Decision(OrderKind.HOLD, reasons=[why])
            return Decision(None, reasons=[why, f"{NOTHING_MORE}."], is_final=True)
    return replace(decision, reasons=[*decision.reasons, *reasons]) if reasons else decision


def after_refusal(policy: Policy, refused: Intervention, refusal: Refusal | None, detail: str) -> Decision | None:
    """Return the decision about the incident, or None to decide anew, as after an order that could not be carried out.

    What lacks an approval is proposed again. Beyond a limit the run is held or goes on, as `when_structural` says. A
    trainer that carries out nothing, or cannot be held, gets no further order for this incident.
    """
    if refusal is Refusal.APPROVAL:
        return Decision(
            refused.kind,
            refused.rewind_to,
            refused.skip_from,
            refused.skip_to,
            refused.lr_scale,
            reasons=[*refused.reasons, "The trainer carries out only what a person has approved."],
            remedies=refused.remedies,
        )
    if refused.kind is OrderKind.ROLLBACK and refusal in (None, Refusal.STALE):
        return None
    final = Decision(None, reasons=[f"{NOTHING_MORE}, and a person must decide: {detail}."], is_final=True)
    if refused.kind is not OrderKind.ROLLBACK or refusal is not Refusal.LIMITS:
        return final
    why = f"The trainer's limits do not permit it ({detail}): a person must decide."
    return Decision(OrderKind.HOLD, reasons=[why]) if _holds(policy) else final


def _holds(policy: Policy) -> bool:
    return policy.when_structural is WhenStructural.HOLD and policy.mode is not Mode.OBSERVE
