"""What waits for a person, and that a decision which somebody else has made is no longer offered."""

import time

import pytest
import sqlalchemy as sa

from dashboard.data import cached, pending
from dashboard.data.facts import RunFacts
from db import commands, queries
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def facts_with(engine: sa.Engine, *, kind: str = "rollback", state: str = "proposed", incident: int = 2) -> RunFacts:
    """A run with two open incidents and one intervention."""
    with writing(engine) as session:
        run = add_run(session)
        for number in (1, 2, 3):
            commands.save_incident(
                session, run=run, number=number, segment=0, now=1.0, kind="stall" if number == 3 else "loss_spike",
                state="open", signal="loss", onset_step=number, detected_step=number, peak_step=None, end_step=None,
                score=2.0, outcome="ongoing", details={},
            )  # fmt: skip
        commands.save_intervention(
            session, run=run, number=1, now=time.time(), incident=incident, kind=kind, state=state, attempt=1,
            rewind_to=0, skip_from=0, skip_to=9, lr_scale=None, details={},
        )  # fmt: skip
    found = cached.facts("r1")
    assert found is not None
    return found


def test_the_first_incident_that_needs_a_person_is_the_one_of_the_proposal(store: sa.Engine) -> None:
    facts = facts_with(store)
    first = pending.first_incident(facts)
    assert first is not None
    assert (first.number, pending.count(facts)) == (2, 2)  # the proposal, and the stall
    assert [each.number for each in pending.unresolved(facts)] == [3]


def test_a_run_that_has_ended_leaves_its_open_incidents_to_a_person(store: sa.Engine) -> None:
    facts = facts_with(store, state="verified")
    with writing(store) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        commands.finish_run(session, run=run, state=RunState.FAILED, at=2.0, now=2.0)
    facts.run.state = RunState.FAILED
    assert [each.number for each in pending.unresolved(facts)] == [1, 2, 3]
    assert "still open when the run ended" in pending.unresolved_sentence(facts, facts.incidents[0])


@pytest.mark.parametrize(
    ("state", "why"),
    [("rejected", "it was rejected"), ("withdrawn", "it was withdrawn"), ("ordered", "it was approved")],
)
def test_a_proposal_that_was_decided_meanwhile_says_how(store: sa.Engine, state: str, why: str) -> None:
    assert why in (pending.decided_meanwhile(facts_with(store, state=state), 1) or "")


def test_a_proposal_waits_until_it_is_decided_or_its_run_is_gone(store: sa.Engine) -> None:
    assert pending.decided_meanwhile(facts_with(store), 1) is None
    assert "no longer in the store" in (pending.decided_meanwhile(None, 1) or "")


def test_a_hold_waits_until_it_is_released(store: sa.Engine) -> None:
    assert pending.released_meanwhile(facts_with(store, kind="hold", state="applied")) is None
    assert pending.released_meanwhile(None) == pending.NO_LONGER_HELD
