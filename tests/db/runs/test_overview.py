"""The questions behind the list of runs."""

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import BlockValues, Run, StoredBlock
from db.runs import overview
from db.runs.filters import RunFilter
from db.runs.overview import Standing, Tally
from db.steps import writer
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import parse
from tests.db.seed import NOW, add_run, add_segment, add_steps, end_run, ids_of_runs
from tests.monitor.client import TestClient, Trainer
from tests.monitor.conftest import clock as clock
from tests.monitor.conftest import http as http


def add_incidents(session: Session, run: Run, states: Sequence[str], kind: str = "loss_spike") -> None:
    facts: dict[str, Any] = {"kind": kind, "signal": "loss", "onset_step": 5, "detected_step": 6, "details": {}}
    for number, state in enumerate(states):
        commands.save_incident(session, run=run, number=number, segment=0, now=NOW, state=state, **facts)


def test_what_waits_for_a_person_is_counted(session: Session, run: Run) -> None:
    assert overview.tallies(session) == {}
    add_incidents(session, run, ["open", "closed", "warning"])
    assert overview.tallies(session) == {run.pk: Tally(open_incidents=2, incidents=3)}
    orders = [("rollback", "proposed"), ("hold", "applied"), ("rollback", "applied"), ("hold", "released")]
    for number, (kind, state) in enumerate(orders):
        values: dict[str, Any] = {"incident": 1, "attempt": 1, "details": {}, "kind": kind, "state": state}
        commands.save_intervention(session, run=run, number=number, now=NOW, **values)
    assert overview.tallies(session) == {run.pk: Tally(open_incidents=2, interventions=4, waiting=2, incidents=3)}
    assert overview.num_waiting(session) == 2
    run.archived_at = NOW
    session.flush()
    assert overview.num_waiting(session) == 0


def test_a_replay_mismatch_waits_for_a_person_and_an_incident_that_was_open_when_its_run_ended_does_not(
    session: Session,
) -> None:
    ended, mismatch = add_run(session, "ended"), add_run(session, "mismatch")
    add_incidents(session, ended, ["open", "closed", "warning"])
    add_incidents(session, mismatch, ["closed", "open"], kind="replay_mismatch")
    ended.state = "finished"
    assert overview.tallies(session) == {
        ended.pk: Tally(open_incidents=2, waiting=0, incidents=3),
        mismatch.pk: Tally(open_incidents=1, waiting=1, incidents=2),
    }


def test_a_hold_waits_for_a_person_until_its_run_has_ended(session: Session, run: Run) -> None:
    held: dict[str, Any] = {"kind": "hold", "state": "applied", "attempt": 1, "details": {}}
    commands.save_intervention(session, run=run, number=1, now=NOW, **held)
    for state, ids in (("running", [run.id]), ("interrupted", [])):
        run.state = state
        session.flush()
        waiting = len(ids)
        assert overview.tallies(session) == {run.pk: Tally(interventions=1, waiting=waiting)}
        assert overview.num_waiting(session) == waiting
        for search in ('state:"needs a person"', "waiting>0"):
            assert ids_of_runs(session, RunFilter(search=parse(search))) == ids
        assert ids_of_runs(session, RunFilter(shown_states=["needs a person"])) == ids


def test_the_newest_step_and_values_of_every_run_that_has_reported(http: TestClient) -> None:
    Trainer(http, "silent")
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(3), {"loss": [3.0, 2.0, float("inf")], "mine": [1.0, 2.0, 3.0]})
    with reading(http.app.state.collector.engine) as session:  # type: ignore[attr-defined]
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
            add_steps(session, run, add_segment(session, run, "a"), range(writer.PACK_AT + 100))
        pks = [run.pk for run in runs]
        session.execute(sa.update(table).where(table.run_pk == pks[1]).values({column: b"\x01cut"}))
    with reading(sqlite_engine) as session:
        listed = queries.runs(session)
        whole = overview.summaries(session, runs=listed, metrics=["loss"])
        newest = overview.newest(session, runs=listed, metrics=["loss"], num_steps=50)
    assert {pk: found.steps for pk, found in whole.items()} == dict.fromkeys(pks, writer.PACK_AT + 100)
    assert [bool(whole[pk].metrics) for pk in pks] == [True, column == "times", True]
    assert [bool(newest[pk][1]) for pk in pks] == [True, column == "values", True]


def test_a_run_without_a_status_gets_the_newest_values_that_its_steps_have(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(20))
    end_run(session, run)
    overview.fill_in(session, run=run)
    session.flush()
    standing = overview.standings(session, runs=[run])[run.pk]
    assert standing.step == 19
    search = RunFilter(search=parse(f"loss={standing.metrics['loss']}"))
    assert ids_of_runs(session, search) == ["r1"]
