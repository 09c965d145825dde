"""What a trainer would not carry out: what keeps a decision within its limits, and what follows a refused order."""

from collections.abc import Sequence
from dataclasses import replace

from lossguard.limits import Limits
from lossguard.states import OrderKind, Refusal
from monitor.detection.effects import Intervention
from monitor.detection.interventions.decision import Decision
from monitor.detection.interventions.policy import Mode, Policy, WhenStructural
from monitor.detection.interventions.restorable import RestorableStep


def with_limits(decision: Decision, limits: Limits, restorable: Sequence[RestorableStep], step: int) -> Decision:
    """The decision with a sentence for each limit of the trainer that shaped it. `restorable`: all, at this step."""
    reasons = []
    kind = decision.kind or decision.unavailable
    too_deep = [each.step for each in restorable if limits.too_deep(step, each.step) is not None]
    if too_deep and kind is OrderKind.HOLD:
        reasons.append(
            f"The trainer's limit max_depth={limits.max_depth} rules out the checkpoints up to step {max(too_deep)}."
        )
    width = 0 if decision.skip_from is None or decision.skip_to is None else decision.skip_to - decision.skip_from
    if limits.max_skip is not None and (kind is OrderKind.HOLD or width >= max(1, limits.max_skip)):
        reasons.append(f"The trainer's limit max_skip={limits.max_skip} permits no wider skip.")
    return replace(decision, reasons=[*decision.reasons, *reasons]) if reasons else decision


def after_refusal(policy: Policy, refused: Intervention, refusal: Refusal | None, detail: str) -> Decision | None:
    """What to do about the incident now, or None: decide anew, as after an order that could not be carried out.

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
    holds = policy.when_structural is WhenStructural.HOLD and policy.mode is not Mode.OBSERVE
    if refused.kind is OrderKind.ROLLBACK and refusal is Refusal.LIMITS and holds:
        return Decision(
            OrderKind.HOLD, reasons=[f"The trainer's limits do not permit it ({detail}): a person must decide."]
        )
    why = f"The policy orders nothing more for this incident, and a person must decide: {detail}."
    return Decision(None, reasons=[why], is_final=True)
