"""The state machines of incidents and interventions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.states import IncidentState, InterventionState
from monitor.detection.effects import (
    INCIDENT_TRANSITIONS,
    INTERVENTION_TERMINAL,
    INTERVENTION_TRANSITIONS,
    IllegalTransition,
    IncidentEvent,
    InterventionEvent,
    advance,
)


def test_the_terminal_states_are_those_in_which_nothing_more_is_done() -> None:
    assert set(IncidentState) - INCIDENT_TRANSITIONS.keys() == {"closed"}
    ended = {"verified", "recurred", "failed", "rejected", "withdrawn", "replaced", "released"}
    assert ended == INTERVENTION_TERMINAL


@given(st.lists(st.sampled_from(InterventionEvent), max_size=12))
def test_any_sequence_of_events_follows_the_table_or_raises_and_changes_nothing(
    events: list[InterventionEvent],
) -> None:
    state = InterventionState.PROPOSED
    for event in events:
        allowed = INTERVENTION_TRANSITIONS.get(state, {})
        if event in allowed:
            state = advance(state, event)
            assert state is allowed[event]
        else:
            with pytest.raises(IllegalTransition, match=f"'{state.value}' has no transition for '{event.value}'"):
                advance(state, event)


def test_a_closed_incident_stays_closed() -> None:
    for event in IncidentEvent:
        with pytest.raises(IllegalTransition):
            advance(IncidentState.CLOSED, event)


def test_an_incident_does_not_take_the_events_of_an_intervention() -> None:
    with pytest.raises(IllegalTransition):
        advance(IncidentState.OPEN, InterventionEvent.APPLY)
