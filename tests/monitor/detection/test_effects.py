"""The state machines of incidents and interventions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.states import IncidentState, InterventionState
from monitor.detection.effects import (
    INCIDENT_TERMINAL,
    INCIDENT_TRANSITIONS,
    INTERVENTION_TERMINAL,
    INTERVENTION_TRANSITIONS,
    IllegalTransition,
    IncidentEvent,
    InterventionEvent,
    advance,
)


def test_every_state_is_in_its_table_or_terminal() -> None:
    assert set(INCIDENT_TRANSITIONS) | INCIDENT_TERMINAL == set(IncidentState)
    assert set(INTERVENTION_TRANSITIONS) | INTERVENTION_TERMINAL == set(InterventionState)
    assert not set(INCIDENT_TRANSITIONS) & INCIDENT_TERMINAL
    assert not set(INTERVENTION_TRANSITIONS) & INTERVENTION_TERMINAL


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
