"""The questions behind the list of runs."""

from typing import Any

import pytest
import sqlalchemy as sa

from db import commands, queries
from db.models import BlockValues, StoredBlock
from db.runs import overview, pages
from db.runs.overview import Standing, Tally
from db.runs.pages import RunFilter
from db.steps import packing
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import parse
from lossguard.vocabulary.states import RunState
from tests.db.seed import NOW, add_run, add_segment, add_steps
from tests.monitor.client import TestClient, Trainer
from tests.monitor.conftest import http as http

INCIDENT: dict[str, Any] = {
    "kind": "loss_spike",
    "signal": "loss",
    "onset_step": 5,
    "detected_step": 6,
    "peak_step": 6,
    "end_step": None,
    "score": 3.0,
    "outcome": None,
    "details": {},
}
INTERVENTION: dict[str, Any] = {
    "incident": 1,
    "attempt": 1,
    "rewind_to": 0,
    "skip_from": 0,
    "skip_to": 9,
    "lr_scale": None,
    "details": {},
}


def test_runs_without_incidents_have_no_tally(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session)
        assert overview.tallies(session) == {}


def test_an_incident_that_is_open_when_its_run_has_ended_waits_for_a_person(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        for number, state in [(1, "open"), (2, "closed"), (3, "warning")]:
            commands.save_incident(session, run=run, number=number, segment=0, now=NOW, state=state, **INCIDENT)
        assert overview.tallies(session) == {run.pk: Tally(open_incidents=2, incidents=3)}
        run.state = "finished"
        assert overview.tallies(session) == {run.pk: Tally(open_incidents=2, waiting=1, incidents=3)}


def test_an_open_replay_mismatch_waits_for_a_person_while_its_run_goes_on(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run, values = add_run(session), INCIDENT | {"kind": "replay_mismatch"}
        for number, state in [(1, "closed"), (2, "open")]:
            commands.save_incident(session, run=run, number=number, segment=0, now=NOW, state=state, **values)
        assert overview.tallies(session) == {run.pk: Tally(open_incidents=1, waiting=1, incidents=2)}


def test_a_proposal_and_a_hold_wait_for_a_person_and_a_closed_incident_is_not_open(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        for number, state in [(1, "open"), (2, "closed"), (3, "warning")]:
            commands.save_incident(session, run=run, number=number, segment=0, now=NOW, state=state, **INCIDENT)
        for number, kind, state in [
            (1, "rollback", "proposed"),
            (2, "hold", "applied"),
            (3, "rollback", "applied"),
            (4, "hold", "released"),
        ]:
            commands.save_intervention(session, run=run, number=number, now=NOW, kind=kind, state=state, **INTERVENTION)
        assert overview.tallies(session) == {run.pk: Tally(open_incidents=2, interventions=4, waiting=2, incidents=3)}
        assert overview.num_waiting(session) == 2
        run.archived_at = NOW
        session.flush()
        assert overview.num_waiting(session) == 0


def test_the_newest_step_and_values_of_every_run_that_has_reported(http: TestClient) -> None:
    Trainer(http, "silent")
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(3), {"loss": [3.0, 2.0, float("inf")], "mine": [1.0, 2.0, 3.0]})
    with reading(http.app.state.engine) as session:  # type: ignore[attr-defined]
        found = list(overview.standings(session, runs=queries.runs(session)).values())
    assert Standing(2, {"loss": "Infinity"}) in found
    assert all(each.step in (None, 2) for each in found)


@pytest.mark.parametrize(("table", "column"), [(StoredBlock, "times"), (BlockValues, "values")])
def test_a_damaged_block_hides_no_other_run_of_a_list(
    sqlite_engine: sa.Engine, table: type[StoredBlock] | type[BlockValues], column: str
) -> None:
    with writing(sqlite_engine) as session:
        runs = [add_run(session, run_id) for run_id in "abc"]
        for run in runs:
            add_steps(session, run, add_segment(session, run, "a"), range(packing.PACK_AT + 100))
        pks = [run.pk for run in runs]
        session.execute(sa.update(table).where(table.run_pk == pks[1]).values({column: b"\x01cut"}))
    with reading(sqlite_engine) as session:
        listed = queries.runs(session)
        whole = overview.summaries(session, runs=listed, metrics=["loss"])
        newest = overview.newest(session, runs=listed, metrics=["loss"], num_steps=50)
    assert {pk: found.steps for pk, found in whole.items()} == dict.fromkeys(pks, packing.PACK_AT + 100)
    assert [bool(whole[pk].metrics) for pk in pks] == [True, column == "times", True]
    assert [bool(newest[pk][1]) for pk in pks] == [True, column == "values", True]


def test_a_run_without_a_status_gets_the_newest_values_that_its_steps_have(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(20))
        assert overview.missing(session) == [], "a running run gets its status with its next report"
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=NOW, now=NOW)
        assert overview.missing(session) == ["r1"]
        overview.fill_in(session, run=run)
        session.flush()
        assert overview.missing(session) == []
        standing = overview.standings(session, runs=[run])[run.pk]
        assert standing.step == 19
        search = RunFilter(search=parse(f"loss={standing.metrics['loss']}"))
        assert pages.ids(session, where=search, now=NOW) == ["r1"]
