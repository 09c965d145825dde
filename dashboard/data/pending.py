"""Needs of a run: approval of an intervention, an end of its hold, a look at an incident. Pure."""

from collections.abc import Mapping

from dashboard import formatting
from dashboard.data.facts import RunFacts
from db.models import Incident, Intervention
from db.run_states import is_holding, is_proposed
from lossguard.vocabulary.states import NEED_A_PERSON, IncidentKind, IncidentState, InterventionState, RunState
from lossguard.vocabulary.wording import incident_standing

HELD_SENTENCE = "The run is on hold until an operator decides."
NO_LONGER_HELD = (
    "The run is no longer on hold: another person released it, or it was restarted. Nothing was changed here."
)
DECIDED: Mapping[str, str] = {
    InterventionState.REJECTED: "it was rejected",
    InterventionState.WITHDRAWN: "it was withdrawn, because the run recovered or another intervention took its place",
}
"""Reasons why a proposal no longer waits, by state, without those after an approval."""


def proposed(facts: RunFacts) -> list[Intervention]:
    return [each for each in facts.interventions if is_proposed(each)]


def proposal_sentence(each: Intervention) -> str:
    return f"Intervention {each.number} is waiting for approval. {formatting.intervention_sentence(each, None)}"


def decided_meanwhile(facts: RunFacts | None, number: int) -> str | None:
    """Return why intervention `number` no longer waits for a decision, in a sentence; None while it does."""
    each = next((each for each in (facts.interventions if facts else ()) if each.number == number), None)
    if facts is None or each is None:
        return f"Intervention {number} is no longer in the store. Nothing was changed here."
    if is_proposed(each):
        return None
    order = facts.orders.get(number)
    by = f" by {order.approved_by}" if order is not None and order.approved_by else ""
    why = DECIDED.get(each.state, f"it was approved{by}")
    return f"Intervention {number} no longer waits for a decision: {why}. Nothing was changed here."


def hold(facts: RunFacts) -> Intervention | None:
    """The hold at which the run waits at a step boundary.

    None for a run that has ended, which does not wait: a restart withdraws its hold.
    """
    holding = [each for each in facts.interventions if is_holding(each)]
    return holding[-1] if holding and facts.run.state == RunState.RUNNING else None


def to_decide(facts: RunFacts) -> list[Intervention]:
    """The proposals, then the hold."""
    held = hold(facts)
    return proposed(facts) + ([] if held is None else [held])


def is_held(facts: RunFacts) -> bool:
    return hold(facts) is not None


def is_diverged(facts: RunFacts) -> bool:
    """True if the incident at which the run is held is not over: to go on from there is no remedy."""
    held = hold(facts)
    return held is not None and any(
        each.number == held.incident and each.state != IncidentState.CLOSED for each in facts.incidents
    )


def standing(facts: RunFacts, incident: Incident) -> str:
    """Return the standing of an incident and, once it is over, its outcome."""
    held = hold(facts)
    is_held = held is not None and held.incident == incident.number
    return incident_standing(incident.state, incident.outcome, incident.details, is_held=is_held)


def released_meanwhile(facts: RunFacts | None, number: int) -> str | None:
    """Return a sentence that the run is no longer held by intervention `number`; None while it is."""
    held = None if facts is None else hold(facts)
    if held is None:
        return NO_LONGER_HELD
    return None if held.number == number else f"This hold is over. Intervention {held.number} holds the run now."


def ended_meanwhile(facts: RunFacts | None, number: int) -> str | None:
    """Return a sentence that incident `number` is no longer open; None while it is."""
    is_open = facts is not None and any(
        each.number == number and each.state == IncidentState.OPEN for each in facts.incidents
    )
    return None if is_open else f"Incident {number} is not open any more. Nothing was changed here."


def unresolved(facts: RunFacts) -> list[Incident]:
    """Open incidents that neither a policy nor the run itself gets over."""
    has_ended = facts.run.state != RunState.RUNNING
    return [
        each
        for each in facts.incidents
        if each.state == IncidentState.OPEN and (has_ended or each.kind in NEED_A_PERSON)
    ]


def unresolved_sentence(facts: RunFacts, incident: Incident) -> str:
    named = f"Incident {incident.number} ({formatting.incident_kind(incident.kind)})"
    if facts.run.state != RunState.RUNNING:
        return f"{named} was still open when the run ended. Check the last checkpoint before you resume from it."
    if incident.kind == IncidentKind.STALL:
        return (
            f"{named}: the run does no steps any more. No policy answers a stall; look at the process and its machine."
        )
    return f"{named}: steps computed again differ from their record. No policy answers this; a person must judge it."


def count(facts: RunFacts) -> int:
    """Count the decisions that wait for a person, as the list of runs does (db/runs/overview.py): an incident that was
    open when its run ended is none."""
    left = unresolved(facts) if facts.run.state == RunState.RUNNING else ()
    return len(to_decide(facts)) + len(left)


def first_incident(facts: RunFacts) -> Incident | None:
    """The incident to which the first decision that waits belongs; None where none waits for one."""
    numbers = [each.incident for each in to_decide(facts)]
    numbers += [each.number for each in unresolved(facts)]
    return next((each for each in facts.incidents if each.number in numbers), None)


def sentences(facts: RunFacts) -> list[str]:
    """Return one sentence for each decision that is pending."""
    return [proposal_sentence(each) for each in proposed(facts)] + [HELD_SENTENCE] * is_held(facts)
