"""Refusals of a trainer: the limits on a decision, and the answer to a refused order."""

from collections.abc import Sequence
from dataclasses import replace

from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.states import OrderKind, Refusal
from monitor.detection.effects import Intervention
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.policy import Mode, Policy, WhenStructural
from monitor.detection.interventions.restorable import RestorableStep

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
    if limits.max_skip is not None and (kind is OrderKind.HOLD or width >= max(1, limits.max_skip)):
        reasons.append(f"The trainer's limit max_skip={limits.max_skip} permits no wider skip.")
        if kind is OrderKind.ROLLBACK and any(0 < each.num_skipped >= limits.max_skip for each in now.attempts):
            return _held_or_final(policy, f"{reasons[-1]} One as wide did not help: a person must decide.")
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


def _held_or_final(policy: Policy, why: str) -> Decision:
    if _holds(policy):
        return Decision(OrderKind.HOLD, reasons=[why])
    return Decision(None, reasons=[why, f"{NOTHING_MORE}."], is_final=True)


def _holds(policy: Policy) -> bool:
    return policy.when_structural is WhenStructural.HOLD and policy.mode is not Mode.OBSERVE
