"""The closed loop as the protocol shows it: spike, order, rollback, verification."""

import math

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import frames, queries
from lossguard.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, obey, probe_event, train_until_nan


def test_a_nan_is_ordered_back_in_the_same_report_and_verified_afterwards(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    assert (order["kind"], order["rewind_to"]) == ("rollback", 250)
    assert (order["skip_from"], order["skip_to"]) == (None, None)  # the batches are not blamed before they do it again
    segment = obey(trainer, order)
    assert trainer.report(segment, range(250, 260), {"loss": noise(2, 10)})["orders"] == []
    trainer.report(segment, range(260, 500), {"loss": noise(3, 240)})
    (intervention,) = trainer.get()["interventions"]
    (incident,) = trainer.get("/incidents")
    assert intervention["state"] == "verified"
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 300, 300)
    assert intervention["details"]["reasons"]
    assert trainer.get()["skip_ledger"] == []


def test_an_incident_that_recurs_is_blamed_on_its_batches_and_they_are_skipped(http: TestClient) -> None:
    trainer = Trainer(http)
    (first,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, first)
    trainer.report(segment, range(250, 300), {"loss": noise(2, 50)})
    (second,) = trainer.report(segment, [300], {"loss": [float("nan")]})["orders"]
    assert second["id"] != first["id"]
    assert first["skip_from"] is None
    assert second["skip_from"] <= 300 < second["skip_to"]
    states = [one["state"] for one in trainer.get()["interventions"]]
    assert states == ["recurred", "ordered"]
    obey(trainer, second, key="second")
    (entry,) = trainer.get()["skip_ledger"]
    assert (entry["skip_from"], entry["skip_to"]) == (second["skip_from"], second["skip_to"])


def test_the_detection_does_not_depend_on_how_the_steps_are_reported(http: TestClient) -> None:
    whole, parts = Trainer(http, "whole"), Trainer(http, "parts")
    train_until_nan(whole)
    train_until_nan(parts, split=(1, 2, 77, 78, 200, 300))
    for trainer in (whole, parts):
        obey(trainer, trainer.report(0, [], {})["orders"][0])
    fields = ("kind", "onset_step", "detected_step", "score", "state")
    one, other = (
        [{name: row[name] for name in fields} for row in trainer.get("/incidents")] for trainer in (whole, parts)
    )
    assert one == other


def test_a_run_that_only_reports_gets_no_order(http: TestClient) -> None:
    trainer = Trainer(http, capabilities=[])
    assert train_until_nan(trainer)["orders"] == []
    assert len(trainer.get("/incidents")) == 1


def test_metrics_show_live_runs_and_drop_ended_ones(http: TestClient) -> None:
    trainer = Trainer(http)
    train_until_nan(trainer)
    text = http.get("/metrics").text
    assert 'lossguard_loss_nats{project="gpt",run="r1"} NaN' in text
    assert 'lossguard_step{project="gpt",run="r1"} 300.0' in text
    assert 'lossguard_incident_onset_step{kind="nonfinite",project="gpt",run="r1",state="treated"} 300.0' in text
    assert "lossguard_steps_total 301.0" in text
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": 1.0})
    assert 'run="r1"' not in http.get("/metrics").text


def test_probes_are_read_by_prompt_and_know_whether_they_are_on_the_live_line(
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    trainer = Trainer(http_on_both)
    trainer.report(trainer.open("a"), range(4), {"loss": [1.0] * 4}, events=[probe_event(1), probe_event(3)])
    rewound = trainer.open("b", 2, "rewind")
    events = [probe_event(3) | {"key": "of the new segment"}, probe_event(3, "import ")]
    for _ in range(2):  # sent again
        trainer.report(rewound, [2, 3], {"loss": [1.0] * 2}, events=events)
    with Session(engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert queries.prompts(session, run=run) == ["def ", "import "]
        found = queries.probes(session, run=run, prompt="def ")
        table = frames.probes(session, run=run, prompt="def ")
        assert len(frames.probes(session, run=run)) == 3 + len(table)
    assert [(each.segment, each.step, each.live) for each in found] == [(0, 1, True), (0, 3, False), (1, 3, True)]
    assert found[0].probe.rest_count == 3
    last = table.iloc[-3:]
    assert last["token"].tolist()[:2] == ["a", "b"]
    assert last["token"].isna().tolist() == [False, False, True]
    assert last["count"].tolist() == [1, 1, 3]
    assert last["live"].all()
    assert last["log_probability"].tolist()[::2] == [-0.25, -2.0]
    assert math.isnan(last["log_probability"].iloc[1])


def test_the_table_of_a_run_without_probes_is_empty_and_typed(http: TestClient, sqlite_engine: sa.Engine) -> None:
    Trainer(http)
    with Session(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert frames.probes(session, run=run).dtypes["log_probability"] == "float64"


def test_a_probe_of_another_form_is_refused_with_its_place(http: TestClient) -> None:
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "events": [probe_event(0), probe_event(1, tokens=["a"])]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "1 tokens have 2 log probabilities" in answer.json()["detail"]
    assert answer.json()["where"] == ["body", "events", 1]
