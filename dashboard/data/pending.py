"""What a run needs from an operator: approval of a proposed intervention, or an end of its hold. Pure."""

from dashboard import formatting
from dashboard.data.facts import RunFacts
from db.interventions import is_holding, is_proposed
from db.models import Intervention

HELD_SENTENCE = "The run is on hold until an operator decides."


def proposed(facts: RunFacts) -> list[Intervention]:
    return [each for each in facts.interventions if is_proposed(each)]


def proposal_sentence(each: Intervention) -> str:
    return f"Intervention {each.number} is waiting for approval. {formatting.intervention_sentence(each, None)}"


def is_held(facts: RunFacts) -> bool:
    return any(map(is_holding, facts.interventions))


def sentences(facts: RunFacts) -> list[str]:
    """One for each decision that is pending."""
    return [proposal_sentence(each) for each in proposed(facts)] + [HELD_SENTENCE] * is_held(facts)
