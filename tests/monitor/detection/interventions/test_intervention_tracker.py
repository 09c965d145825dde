"""One intervention through its states."""

from dataclasses import replace

import pytest

from lossguard.states import InterventionState, OrderKind
from monitor.detection import (
    INTERVENTION_TRANSITIONS,
    IllegalTransition,
    InterventionChanged,
    InterventionEvent,
)
from monitor.detection.interventions.decision import Decision
from monitor.detection.interventions.intervention_tracker import InterventionTracker


@pytest.mark.parametrize("event", InterventionEvent)
@pytest.mark.parametrize("state", INTERVENTION_TRANSITIONS)
def test_an_event_is_a_step_of_the_table_or_raises_and_changes_nothing(
    state: InterventionState, event: InterventionEvent
) -> None:
    tracker = InterventionTracker()
    tracker.propose(Decision(OrderKind.ROLLBACK, 100, 100, 300), incident=1, step=250)
    assert tracker.active is not None
    tracker.active = replace(tracker.active, state=state)
    before = tracker.to_dict()
    if event in INTERVENTION_TRANSITIONS[state]:
        effect = tracker.advance(event)
        assert isinstance(effect, InterventionChanged)
        assert effect.intervention.state is INTERVENTION_TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition):
            tracker.advance(event, "never", rewind_to=5)
        assert tracker.to_dict() == before
