"""The verdict that no rollback helps: the cause is structural, the recipe or the data as a whole."""

from lossguard.vocabulary.states import OrderKind
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.policy import Policy, WhenStructural

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
