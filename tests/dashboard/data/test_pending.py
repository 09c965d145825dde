"""What waits for a person, and that a decision which somebody else has made is no longer offered."""

import pytest

from dashboard.data import pending
from dashboard.data.facts import RunFacts
from db.models import Incident, Intervention, Run
from tests.dashboard.facts import facts_of


def facts_with(*, kind: str = "rollback", state: str = "proposed") -> RunFacts:
    """A run with three open incidents, of which the last is a stall, and one intervention on the second."""
    kinds = enumerate(("loss_spike", "loss_spike", "stall"), 1)
    incidents = [Incident(number=number, kind=each, state="open", onset_step=number) for number, each in kinds]
    intervention = Intervention(number=1, incident=2, kind=kind, state=state, details={})
    run = Run(id="r1", config={}, state="running", capabilities=[])
    return facts_of(run, incidents=incidents, interventions=[intervention])


def test_the_first_incident_that_needs_a_person_is_the_one_of_the_proposal() -> None:
    facts = facts_with()
    first = pending.first_incident(facts)
    assert first is not None
    assert (first.number, pending.count(facts)) == (2, 2)  # the proposal, and the stall
    assert [each.number for each in pending.unresolved(facts)] == [3]


@pytest.mark.parametrize(("run_state", "waiting"), [("running", [2]), ("interrupted", [])])
def test_the_hold_of_a_run_that_has_ended_needs_nobody(run_state: str, waiting: list[int]) -> None:
    facts = facts_with(kind="hold", state="applied")
    facts.run.state = run_state
    for each in facts.incidents:
        each.state = "closed"
    first = pending.first_incident(facts)
    assert pending.count(facts) == len(waiting)
    assert ([] if first is None else [first.number]) == waiting


@pytest.mark.parametrize(
    ("state", "why"), [("rejected", "was rejected"), ("withdrawn", "was withdrawn"), ("ordered", "was approved")]
)
def test_what_waits_is_offered_until_somebody_has_decided_it_or_its_run_is_gone(state: str, why: str) -> None:
    assert pending.decided_meanwhile(facts_with(), 1) is None
    assert why in (pending.decided_meanwhile(facts_with(state=state), 1) or "")
    assert "no longer in the store" in (pending.decided_meanwhile(None, 1) or "")
    held = facts_with(kind="hold", state="applied")
    assert pending.released_meanwhile(held, 1) is None
    assert pending.released_meanwhile(held, 0) == "This hold is over. Intervention 1 holds the run now."
    for released in (facts_with(kind="hold", state="released"), None):
        assert pending.released_meanwhile(released, 1) == pending.NO_LONGER_HELD
    assert pending.ended_meanwhile(held, 2) is None
    for facts, number in ((held, 4), (None, 2)):
        assert f"Incident {number} is not open any more" in (pending.ended_meanwhile(facts, number) or "")
