"""The closed loop as the protocol shows it: spike, order, rollback, verification."""

from lossguard.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def test_a_nan_is_ordered_back_in_the_same_report_and_verified_afterwards(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    assert (order["kind"], order["rewind_to"]) == ("rollback", 200)
    assert 200 <= order["skip_to"] - order["skip_from"] <= 500
    segment = obey(trainer, order)
    assert trainer.report(segment, range(200, 210), {"loss": noise(2, 10)})["orders"] == []
    trainer.report(segment, range(210, 500), {"loss": noise(3, 290)})
    (intervention,) = trainer.get()["interventions"]
    (incident,) = trainer.get("/incidents")
    assert intervention["state"] == "verified"
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 300, 300)
    assert intervention["details"]["reasons"]
    (entry,) = trainer.get()["skip_ledger"]
    assert (entry["skip_from"], entry["skip_to"]) == (order["skip_from"], order["skip_to"])


def test_an_incident_that_recurs_is_rolled_back_further(http: TestClient) -> None:
    trainer = Trainer(http)
    (first,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, first)
    trainer.report(segment, range(200, 300), {"loss": noise(2, 100)})
    (second,) = trainer.report(segment, [300], {"loss": [float("nan")]})["orders"]
    assert second["id"] != first["id"]
    assert second["rewind_to"] < first["rewind_to"]
    states = [one["state"] for one in trainer.get()["interventions"]]
    assert states == ["recurred", "ordered"]


def test_the_detection_does_not_depend_on_how_the_steps_are_reported(http: TestClient) -> None:
    whole, parts = Trainer(http, "whole"), Trainer(http, "parts")
    train_until_nan(whole)
    train_until_nan(parts, split=(1, 2, 77, 78, 200, 300))
    for trainer in (whole, parts):
        obey(trainer, trainer.get()["orders"][0])
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
