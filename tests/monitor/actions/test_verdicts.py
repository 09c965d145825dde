"""The verdict of a replay is stored with its incident."""

import math
from typing import Any

import pytest
import sqlalchemy as sa

from db import frames, queries
from db.records.access import Scope
from db.store.engine import reading
from lossguard.vocabulary.protocol import API
from lossguard.vocabulary.states import Cause
from tests.monitor.client import TestClient, Trainer
from tests.monitor.tokens import TokenClient, create_token
from tests.monitor.verdict import VERDICT


def run_with_incident(http: TestClient) -> Trainer:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(40), {"loss": [2.0] * 39 + [math.nan]})
    return trainer


def put(http: TestClient, change: dict[str, Any] | None = None, number: int = 1) -> Any:
    return http.put(f"{API}/runs/r1/incidents/{number}/verdict", json=VERDICT | (change or {}))


def test_an_incident_has_no_verdict_until_it_was_replayed_and_the_newest_one_after(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = run_with_incident(http)
    assert [incident["verdict"] for incident in trainer.get("/incidents")] == [None]
    put(http, {"cause": "undetermined"})
    answer = put(http)
    assert answer.status_code == 200, answer.text
    (incident,) = trainer.get("/incidents")
    assert incident == answer.json() == trainer.get("/incidents/1")
    assert incident["verdict"] == VERDICT
    assert incident["kind"] == "nonfinite"
    with reading(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert frames.incidents(session, run=run)["verdict"].loc[1]["cause"] == "data"


def test_later_reports_of_the_run_leave_the_verdict(http: TestClient) -> None:
    trainer = run_with_incident(http)
    put(http)
    trainer.report(0, range(40, 80), {"loss": [2.0] * 40})
    assert [incident["verdict"] for incident in trainer.get("/incidents")] == [VERDICT]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_the_protocol_is_accepted(http: TestClient, cause: Cause) -> None:
    run_with_incident(http)
    assert put(http, {"cause": cause}).json()["verdict"]["cause"] == cause


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cause": "gremlins"}, "cause"),
        ({"sentence": ""}, "sentence"),
        ({"sentence": "x" * 1001}, "sentence"),
        ({"more": 1}, "more"),
        ({"excerpts": [VERDICT["excerpts"][0] | {"inputs": "x" * 2001}]}, "inputs"),
        ({"excerpts": [VERDICT["excerpts"][0] | {"inputs": "\x00"}]}, "NUL"),
        ({"excerpts": VERDICT["excerpts"] * 17}, "excerpts"),
        ({"culprits": [{"batch_from": -1, "batch_to": 3}]}, "batch_from"),
        ({"evidence": VERDICT["evidence"] | {"recorded": [2.0] * 2001}}, "recorded"),
        ({"evidence": VERDICT["evidence"] | {"recorded": ["2.0"]}}, "recorded"),
    ],
)
def test_a_malformed_verdict_is_refused_and_changes_nothing(
    http: TestClient, change: dict[str, Any], words: str
) -> None:
    trainer = run_with_incident(http)
    answer = put(http, change)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text
    assert trainer.get("/incidents")[0]["verdict"] is None


def test_an_unknown_incident_is_not_found(http: TestClient) -> None:
    run_with_incident(http)
    for answer in (put(http, number=7), http.get(f"{API}/runs/r1/incidents/7")):
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no incident 7")
    assert http.get(f"{API}/runs/nobody/incidents/1").json()["detail"] == "there is no run 'nobody'"


def test_a_trainers_token_may_write_a_verdict_and_the_audit_trail_keeps_who_did(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    run_with_incident(http)
    reader = TokenClient(http, create_token(sqlite_engine, "reader", Scope.READ))
    trainers = TokenClient(http, create_token(sqlite_engine, "trainers", Scope.REPORT))
    assert reader.status("PUT", "/runs/r1/incidents/1/verdict", VERDICT) == 403
    assert trainers.status("PUT", "/runs/r1/incidents/1/verdict", VERDICT) == 200
    ada = TokenClient(http, create_token(sqlite_engine, "ada", Scope.OPERATE))
    (line,) = http.get(f"{API}/audit?run=r1", headers=ada.headers).json()
    assert (line["who"], line["action"], line["details"]["cause"]) == ("trainers", "verdict", "data")
    assert line["details"]["culprits"] == [{"batch_from": 7, "batch_to": 9}]
