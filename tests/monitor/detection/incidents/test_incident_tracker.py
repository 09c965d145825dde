"""The incidents of a run: which rows end one, and what a transition that is not possible leaves behind."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentState, Outcome
from monitor.detection import INCIDENT_TRANSITIONS, DetectionEngine, IllegalTransition, IncidentEvent
from monitor.detection.incidents.incident_tracker import IncidentTracker
from tests.monitor.detection.runs import begun, detected, healthy, rows_of, spiked


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


def sparse(rise: Any, end: int = 2300) -> dict[str, Any]:
    """A run that reports its loss at every tenth step, and the other signals at every step; it rises from step 2000."""
    columns = healthy(2300)
    columns["loss"][2000:end] += rise
    columns["loss"] = [value if step % 10 == 0 else None for step, value in enumerate(columns["loss"])]
    return columns


@pytest.mark.parametrize("rise", [np.nan, 1.5, np.arange(300) * 0.01])
def test_rows_without_the_loss_do_not_end_an_incident_of_the_loss(rise: Any) -> None:
    assert [incident.state for incident in detected(sparse(rise)).incidents] == [IncidentState.OPEN]


def test_the_rows_that_end_an_incident_are_those_with_its_signal() -> None:
    rows = rows_of(sparse(1.5, end=2100))
    engine, log = begun(rows[:2119])
    assert engine.incidents.open is not None
    assert (engine.incidents.open.calm_rows, engine.incidents.open.rows_without_signal) == (2, 8)
    log.add(engine.feed(rows[2119:]))
    assert [(incident.end_step, incident.outcome) for incident in log.incidents] == [(2090, Outcome.RECOVERED)]


def test_an_incident_says_once_that_skipped_updates_reached_their_cap() -> None:
    columns = healthy(800)
    columns["skipped"] = np.zeros(800)
    columns["skipped"][300:] = 1.0
    columns["loss"][300:] = np.nan
    (incident,) = detected(columns).incidents
    assert sum("skipped 5 updates" in reason for reason in incident.reasons) == 1
