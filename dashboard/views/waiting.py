"""What waits for an operator: proposed interventions, and a hold."""

import streamlit as st

from dashboard import formatting
from dashboard.data.facts import RunFacts
from db.interventions import is_holding, is_proposed
from db.models import Intervention


def proposed(facts: RunFacts) -> list[Intervention]:
    return [each for each in facts.interventions if is_proposed(each)]


def is_held(facts: RunFacts) -> bool:
    return any(map(is_holding, facts.interventions))


def show_warnings(facts: RunFacts) -> None:
    for each in proposed(facts):
        sentence = formatting.intervention_sentence(each, None)
        st.warning(
            f"Intervention {each.number} is waiting for approval. {sentence}", icon=":material/person_raised_hand:"
        )
    if is_held(facts):
        st.warning("The run is on hold until an operator decides.", icon=":material/front_hand:")
