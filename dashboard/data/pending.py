"""What a run needs from an operator: approval of a proposed intervention, or an end of its hold. Pure."""

from dashboard import formatting
from dashboard.data.facts import RunFacts
from db.interventions import is_holding, is_proposed
from db.models import Intervention
from lossguard.states import RunState

HELD_SENTENCE = "The run is on hold until an operator decides."


def proposed(facts: RunFacts) -> list[Intervention]:
    return [each for each in facts.interventions if is_proposed(each)]


def proposal_sentence(each: Intervention) -> str:
    return f"Intervention {each.number} is waiting for approval. {formatting.intervention_sentence(each, None)}"


def is_held(facts: RunFacts) -> bool:
    """Whether the run waits at a step boundary. One that has ended does not, and a restart withdraws its hold."""
    return facts.run.state == RunState.RUNNING and any(map(is_holding, facts.interventions))


def sentences(facts: RunFacts) -> list[str]:
    """One for each decision that is pending."""
    return [proposal_sentence(each) for each in proposed(facts)] + [HELD_SENTENCE] * is_held(facts)
