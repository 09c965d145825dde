"""Warnings about what needs an operator: proposed interventions, and a hold."""

import streamlit as st

from dashboard.data import pending
from dashboard.data.facts import RunFacts


def show_warnings(facts: RunFacts) -> None:
    for each in pending.proposed(facts):
        st.warning(pending.proposal_sentence(each), icon=":material/person_raised_hand:")
    if pending.is_held(facts):
        st.warning(pending.HELD_SENTENCE, icon=":material/front_hand:")
