"""What follows when a trainer would not carry out an order: a person is asked, and the order is not repeated."""

from lossguard.states import OrderKind, Refusal
from monitor.detection.effects import Intervention
from monitor.detection.interventions.decision import Decision
from monitor.detection.interventions.policy import Mode, Policy, WhenStructural


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
