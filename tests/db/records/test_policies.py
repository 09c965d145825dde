"""Layers of the policy in the store."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.records import policies
from db.store.engine import reading, writing
from lossguard.vocabulary.states import Layer
from tests.db.seed import add_run, end_run


def test_a_layer_is_replaced_and_a_run_has_its_own_project_and_collector_layers(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session, "a", project="p")
        for mode in ("observe", "approve"):
            policies.set_fields(session, key=policies.COLLECTOR, fields={"mode": mode}, who="ada", now=1.0)
        policies.set_fields(session, key=policies.project_key("p"), fields={"patience": 3}, who="ada", now=1.0)
        policies.set_fields(session, key=policies.project_key("q_"), fields={"patience": 4}, who="ada", now=1.0)
        policies.set_fields(session, key=policies.run_key("a"), fields={}, who="ada", now=1.0, run=run)
    with reading(engine) as session:
        shared = {Layer.COLLECTOR: {"mode": "approve"}, Layer.PROJECT: {"patience": 3}}
        assert policies.layers(session, project="p", run_id="a") == {**shared, Layer.RUN: {}}
        assert policies.layers(session, project="p") == shared
        assert policies.layers(session, project="other", run_id="b") == {Layer.COLLECTOR: {"mode": "approve"}}
        assert policies.projects(session) == {"p": {"patience": 3}, "q_": {"patience": 4}}


def test_running_runs_are_listed_with_what_they_set_themselves(session: Session) -> None:
    first, _, ended = (add_run(session, run_id, project="p") for run_id in ("b", "a", "c"))
    add_run(session, "d", project="q")
    policies.set_fields(session, key=policies.run_key("b"), fields={"patience": 3}, who="ada", now=1.0, run=first)
    end_run(session, ended, 1.0)
    assert policies.running(session, project="p") == [("a", "p", {}), ("b", "p", {"patience": 3})]
    assert [run_id for run_id, _, _ in policies.running(session)] == ["a", "b", "d"]


def test_who_set_the_layer_of_a_run_and_whether_it_is_the_first_of_its_project_is_known(session: Session) -> None:
    first, second = add_run(session, "a", project="p"), add_run(session, "b", project="p")
    assert policies.is_first_of_project(session, run=first)
    assert not policies.is_first_of_project(session, run=second)
    for by_operator in (False, True):
        policies.set_fields(
            session, key=policies.run_key("a"), fields={}, who="x", now=1.0, run=first, by_operator=by_operator
        )
        assert policies.is_set_by_operator(session, run=first) is by_operator
    assert not policies.is_set_by_operator(session, run=second)
