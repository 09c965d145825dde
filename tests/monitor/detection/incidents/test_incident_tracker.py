"""The incidents of a run: what a transition that is not possible leaves behind."""

from dataclasses import replace

import pytest

from lossguard.vocabulary.states import IncidentState, Outcome
from monitor.detection import INCIDENT_TRANSITIONS, DetectionEngine, IllegalTransition, IncidentEvent
from monitor.detection.incidents.incident_tracker import IncidentTracker
from tests.monitor.detection.runs import rows_of, spiked


def tracker_in(state: IncidentState) -> IncidentTracker:
    """With an open incident that is in this state."""
    engine = DetectionEngine()
    engine.feed(rows_of(spiked(at=300))[:305])
    assert engine.incidents.open is not None
    engine.incidents.open.incident = replace(engine.incidents.open.incident, state=state)
    return engine.incidents


def let_happen(tracker: IncidentTracker, event: IncidentEvent) -> None:
    match event:
        case IncidentEvent.TREAT:
            tracker.treat()
        case IncidentEvent.CLOSE:
            tracker.close(Outcome.ONGOING, "The test ended it.")


@pytest.mark.parametrize("event", [IncidentEvent.TREAT, IncidentEvent.CLOSE])
@pytest.mark.parametrize("state", IncidentState)
def test_an_event_is_a_step_of_the_table_or_raises_and_changes_nothing(
    state: IncidentState, event: IncidentEvent
) -> None:
    tracker = tracker_in(state)
    before = tracker.to_dict()
    if event in INCIDENT_TRANSITIONS.get(state, {}):
        let_happen(tracker, event)
        assert tracker.to_dict() != before or state is IncidentState.TREATED
    else:
        with pytest.raises(IllegalTransition):
            let_happen(tracker, event)
        assert tracker.to_dict() == before


def test_only_a_treated_incident_relapses() -> None:
    for state in (IncidentState.WARNING, IncidentState.OPEN):
        assert tracker_in(state).relapse() == []
    tracker = tracker_in(IncidentState.TREATED)
    assert len(tracker.relapse()) == 1
    assert tracker.open is not None
    assert tracker.open.incident.state is IncidentState.OPEN
