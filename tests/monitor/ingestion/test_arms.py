"""Tried arms: from a report into the store, once, and from there to the policies of the project."""

import math
from typing import Any

import sqlalchemy as sa

from db import queries
from db.store.engine import reading
from lossguard.vocabulary.protocol import API, ARMS
from lossguard.vocabulary.states import Arm, IncidentKind
from lossguard.vocabulary.wire import ArmResult, ArmsTried
from monitor.ingestion import detection_state
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def result(arm: Arm, loss: float = 2.0, **values: Any) -> ArmResult:
    known = {"steps": 100, "difference": loss - 2.5, "error": 0.01, "got_past": math.isfinite(loss)}
    return ArmResult(arm=arm, loss=loss, **known | values)


def tried_event(order: int, *results: ArmResult) -> dict[str, Any]:
    tried = ArmsTried(order=order, rewind_to=250, tier="memory", window=75, results=results)
    return {"key": "e-arms", "step": None, "time": NOW, "kind": ARMS, "details": tried.to_details()}


ALL = (result(Arm.WAIT, math.nan), result(Arm.REWIND), result(Arm.REWIND_WITH_REMEDY, math.inf, remedy="clip"))


def test_arms_are_stored_once_with_what_their_incident_was(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    for _ in range(2):  # the report is sent again
        trainer.report(0, [], {}, events=[tried_event(order["id"], *ALL)])
    arms = {each["arm"]: each for each in trainer.get()["arms"]}
    assert arms.keys() == {"wait", "rewind", "rewind_with_remedy"}
    assert {(each["incident"], each["intervention"]) for each in arms.values()} == {(1, 1)}
    waited = arms["wait"]["details"]
    assert (waited["loss"], waited["got_past"], waited["kind"]) == ("NaN", False, "nonfinite")
    assert (waited["tier"], waited["depth"], waited["attempt"]) == ("memory", 50, 1)
    assert arms["rewind_with_remedy"]["details"]["loss"] == "Infinity"
    assert not [each for each in trainer.get()["events"] if each["kind"] == ARMS]


def test_arms_change_nothing_in_what_the_detection_expects(http: TestClient) -> None:
    """An announced change would begin a new baseline."""
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    trainer.report(0, [], {}, events=[tried_event(order["id"], *ALL)])
    segment = obey(trainer, order)
    (again,) = trainer.report(segment, range(250, 321), {"loss": [*noise(2, 70), math.nan]})["orders"]
    assert again["kind"] == "rollback"


def test_arms_of_an_order_of_another_run_or_of_none_are_left_out(http: TestClient) -> None:
    trainer, other = Trainer(http), Trainer(http, "r2")
    train_until_nan(trainer)
    (theirs,) = train_until_nan(other)["orders"]
    for number in (theirs["id"], 4711, 2**40):
        trainer.report(0, [], {}, events=[tried_event(number, *ALL)])
    assert trainer.get()["arms"] == []


def test_malformed_arms_are_refused_and_nothing_of_the_report_is_stored(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    event = tried_event(order["id"], *ALL)
    event["details"]["arms"][0]["loss"] = None
    body = {"segment": 0, "steps": [301], "times": [NOW], "metrics": {"loss": [3.0]}, "events": [event]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "an arm has no loss" in answer.text
    assert trainer.get()["newest_step"]["step"] == 300


def test_the_arms_of_a_project_reach_the_policy_of_its_next_run(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    trainer.report(0, [], {}, events=[tried_event(order["id"], *ALL)])
    Trainer(http, "next"), Trainer(http, "elsewhere", project="other")
    with reading(sqlite_engine) as session:
        for run_id, num in (("r1", 1), ("next", 1), ("elsewhere", 0)):
            run = queries.run_named(session, run_id=run_id)
            assert run is not None
            records = detection_state.load(session, run).response.records
            tried = records.tried(IncidentKind.NONFINITE, Arm.REWIND, tier="memory", depth=50)
            assert (tried.num, tried.num_past) == (num, num)
