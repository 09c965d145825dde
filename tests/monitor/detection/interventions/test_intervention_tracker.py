"""One intervention through its states."""

from dataclasses import replace

import pytest

from lossguard.vocabulary.states import InterventionState, OrderKind
from monitor.detection import INTERVENTION_TRANSITIONS, IllegalTransition, InterventionChanged, InterventionEvent
from monitor.detection.encoding import dump
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
    before = dump(tracker)
    if event in INTERVENTION_TRANSITIONS[state]:
        effect = tracker.advance(event)
        assert isinstance(effect, InterventionChanged)
        assert effect.intervention.state is INTERVENTION_TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition):
            tracker.advance(event, "never", rewind_to=5)
        assert dump(tracker) == before


def test_steps_after_a_remedy_are_not_those_that_were_recorded_before_it() -> None:
    """Neither after the rollback with it, nor after the next one at the site, which leaves it on."""
    tracker = InterventionTracker()
    for number, remedies in enumerate(([], ["clip"], []), 1):
        decision = Decision(OrderKind.ROLLBACK, 100, 100, 300, remedies=remedies)
        tracker.propose(decision, incident=1, step=250)
        for event in (InterventionEvent.APPROVE, InterventionEvent.ORDER, InterventionEvent.APPLY):
            tracker.advance(event)
        assert tracker.changes_updates(number) is (number > 1)
        tracker.advance(InterventionEvent.RECUR)


@pytest.mark.parametrize(("num_failures", "hard_sites", "easy_sites"), [(0, 0, 1), (1, 1, 0), (2, 1, 0)])
def test_a_site_is_hard_where_a_rollback_recurred_before_one_got_past(
    num_failures: int, hard_sites: int, easy_sites: int
) -> None:
    tracker = InterventionTracker()
    for number in range(num_failures + 1):
        tracker.propose(Decision(OrderKind.ROLLBACK, 100, 100, 300), incident=1, step=250, attempt=number + 1)
        tracker.order()
        tracker.advance(InterventionEvent.APPLY)
        if number < num_failures:
            tracker.advance(InterventionEvent.RECUR)
    tracker.verify("past it")
    assert (tracker.hard_sites, tracker.easy_sites, tracker.unsuccessful) == (hard_sites, easy_sites, [])


@pytest.mark.parametrize(
    ("onset_step", "detected_step", "num_attempts"),
    [(250, 251, 1), (191, 200, 1), (150, 190, 0), (271, 280, 0)],
)
def test_trouble_is_at_the_site_of_a_rollback_if_it_showed_after_the_restored_step(
    onset_step: int, detected_step: int, num_attempts: int
) -> None:
    """Its onset may be dated back before that step."""
    tracker = InterventionTracker()
    tracker.propose(Decision(OrderKind.ROLLBACK, 200), incident=1, step=260, site_start=250, site_end=270)
    tracker.order()
    tracker.advance(InterventionEvent.APPLY)
    assert len(tracker.attempts_at(onset_step, detected_step)) == num_attempts


def test_a_hold_that_fails_leaves_the_attempts_at_its_site() -> None:
    tracker = InterventionTracker()
    tracker.propose(Decision(OrderKind.ROLLBACK, 200), incident=1, step=260, site_start=250, site_end=270)
    tracker.order()
    tracker.advance(InterventionEvent.FAIL)
    tracker.propose(Decision(OrderKind.HOLD), incident=1, step=262, attempt=2)
    tracker.order()
    tracker.advance(InterventionEvent.FAIL)
    assert [each.number for each in tracker.attempts_at(250, 251)] == [1]


def test_only_a_rollback_under_verification_takes_a_note() -> None:
    tracker = InterventionTracker()
    assert tracker.note("too early") == []
    tracker.propose(Decision(OrderKind.ROLLBACK, 100, 100, 300, reasons=["why"]), incident=1, step=250)
    tracker.order()
    assert tracker.note("still on its way") == []
    tracker.advance(InterventionEvent.APPLY)
    (effect,) = tracker.note("the recomputed steps agree")
    assert isinstance(effect, InterventionChanged)
    assert effect.intervention.reasons == ["why", "the recomputed steps agree"]


@pytest.mark.parametrize(("lr_scale", "number", "changes"), [(None, 1, False), (0.5, 1, True), (0.5, 2, False)])
def test_an_order_with_another_learning_rate_changes_the_updates(
    lr_scale: float | None, number: int, changes: bool
) -> None:
    tracker = InterventionTracker()
    assert not tracker.changes_updates(number)
    tracker.propose(Decision(OrderKind.ROLLBACK, 100, 100, 300, lr_scale), incident=1, step=250)
    assert tracker.changes_updates(number) is changes
