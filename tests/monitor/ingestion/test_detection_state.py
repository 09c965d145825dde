"""The closed loop as the protocol shows it: spike, order, rollback, verification."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import DetectionState
from lossguard.protocol import API
from monitor.ingestion import detection_state
from tests.monitor.client import TestClient, Trainer

CHECKPOINTS = [0, 50, 100, 150, 200, 250, 300]


def noise(seed: int, count: int) -> list[float]:
    generator = random.Random(seed)
    return [3.0 + generator.gauss(0, 0.02) for _ in range(count)]


def train_until_nan(trainer: Trainer, split: Sequence[int] = (300,)) -> dict[str, Any]:
    """300 quiet steps in reports that end at `split`, then a NaN; the answer to that."""
    segment = trainer.open("a")
    losses = noise(1, 300)
    for first, last in zip((0, *split[:-1]), split, strict=True):
        trainer.report(segment, range(first, last), {"loss": losses[first:last]}, restorable_steps=CHECKPOINTS)
    return trainer.report(segment, [300], {"loss": [float("nan")]})


def obey(trainer: Trainer, order: dict[str, Any], key: str = "b") -> int:
    """What the SDK sends when the guard has rolled back."""
    segment = trainer.open(key, order["rewind_to"], "rollback", order["id"])
    told = {"state": "applied", "rewound_to": order["rewind_to"]}
    told |= {name: order[name] for name in ("skip_from", "skip_to")}
    for _ in range(2):  # sent again after a crash
        answer = trainer.http.put(f"{API}/orders/{order['id']}", json=told)
        assert answer.status_code == 200, answer.text
    return segment


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


def test_trouble_that_comes_back_goes_deeper(http: TestClient) -> None:
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
    kept = ("kind", "onset_step", "detected_step", "score", "state")
    one, other = (
        [{name: row[name] for name in kept} for row in trainer.get("/incidents")] for trainer in (whole, parts)
    )
    assert one == other


def test_an_observed_run_gets_no_order_but_its_incident(http: TestClient) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "observe"})
    assert train_until_nan(trainer)["orders"] == []
    assert len(trainer.get("/incidents")) == 1


def test_a_run_that_only_reports_gets_no_order(http: TestClient) -> None:
    trainer = Trainer(http, capabilities=[])
    assert train_until_nan(trainer)["orders"] == []
    assert len(trainer.get("/incidents")) == 1


@pytest.mark.parametrize(("verb", "state"), [("approve", "ordered"), ("reject", "rejected")])
def test_a_person_is_asked_first_when_the_policy_says_so(http: TestClient, verb: str, state: str) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    assert train_until_nan(trainer)["orders"] == []
    (intervention,) = trainer.get()["interventions"]
    assert intervention["state"] == "proposed"
    path = f"{API}/interventions/{intervention['id']}/{verb}"
    assert http.post(path).json()["state"] == state
    assert http.post(path).status_code == 409
    assert len(trainer.report(0, [], {})["orders"]) == (1 if verb == "approve" else 0)


def test_a_person_can_roll_back_by_hand(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS)
    answer = http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 150, "reason": "the data was wrong"})
    assert answer.status_code == 200, answer.text
    (order,) = trainer.report(0, [], {})["orders"]
    assert order["rewind_to"] == 150
    assert "the data was wrong" in order["reason"]


def test_a_rollback_by_hand_to_nowhere_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(10), {"loss": noise(1, 10)})
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 9}).status_code == 409


def test_a_policy_with_an_unknown_field_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    answer = http.put(f"{API}/runs/r1/policy", json={"mode": "observe", "depht": 3})
    assert answer.status_code == 422
    assert "depht" in answer.json()["detail"]
    assert trainer.get()["policy"]["mode"] == "auto"


def test_after_a_rollback_the_detectors_have_forgotten_the_branch(http: TestClient) -> None:
    """What is learnt after the fork equals what a run that never left the line has learnt."""
    straight, forked = (Trainer(http, name, capabilities=[]) for name in ("straight", "forked"))
    quiet = noise(5, 400)
    straight.report(straight.open("a"), range(400), {"loss": quiet})
    forked.report(forked.open("a"), range(300), {"loss": quiet[:280] + [9.0] * 20})
    segment = forked.open("b", 280, "rewind")
    forked.report(segment, range(280, 400), {"loss": quiet[280:]})
    spike = {"loss": [quiet[0] + 1.0] * 4}
    straight.report(0, range(400, 404), spike)
    forked.report(segment, range(400, 404), spike)
    scores = [trainer.get("/incidents")[-1]["score"] for trainer in (straight, forked)]
    assert scores[0] == scores[1]


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


def test_an_answer_to_an_order_of_another_store_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    answer = http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": "an older one"})
    assert answer.status_code == 409
    assert http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": order["key"]}).status_code == 200


def test_what_the_trainer_did_is_recorded_though_the_order_was_withdrawn_meanwhile(http: TestClient) -> None:
    trainer = Trainer(http)
    (first,) = train_until_nan(trainer)["orders"]
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 200
    told = {"state": "applied", "rewound_to": 200, "skip_from": 200, "skip_to": 400}
    assert http.put(f"{API}/orders/{first['id']}", json=told).status_code == 200
    assert [(entry["skip_from"], entry["skip_to"]) for entry in trainer.get()["skip_ledger"]] == [(200, 400)]


def test_a_spool_that_arrives_late_does_not_take_over_the_live_line(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(100), {"loss": noise(1, 100)})
    body = {"key": "late", "fork_step": 40, "reason": "resume", "order": None, "opened_at": 1.0}
    late = http.post(f"{API}/runs/r1/segments", json=body).json()["segment"]
    trainer.report(late, range(40, 60), {"loss": [9.0] * 20})
    assert trainer.get()["newest_step"]["step"] == 99
    assert trainer.get("/incidents") == []


def test_an_order_stays_open_when_the_trainer_restarts_before_it_obeys(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    segment = trainer.open("b", 300, "resume")
    assert [one["id"] for one in trainer.report(segment, [], {})["orders"]] == [order["id"]]
    assert [one["state"] for one in trainer.get()["interventions"]] == ["ordered"]
    answer = http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "detail": "no intact checkpoint"})
    assert answer.status_code == 200, answer.text
    assert trainer.get()["interventions"][0]["state"] == "failed"


def test_a_declared_change_in_the_replayed_stretch_is_no_incident_after_the_rollback(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    loss = [value + (0.5 if step >= 400 else 0.0) for step, value in enumerate(noise(4, 560))]
    checkpoints = list(range(0, 560, 50))
    event = {"key": "e1", "step": 400, "time": 1.0, "kind": "data_mix", "details": {}}
    trainer.report(segment, range(400), {"loss": loss[:400]}, restorable_steps=checkpoints)
    trainer.report(segment, range(400, 560), {"loss": loss[400:]}, events=[event])
    (order,) = trainer.report(segment, [560], {"loss": [float("nan")]})["orders"]
    assert order["rewind_to"] == 450
    segment = obey(trainer, order)
    trainer.report(segment, range(450, 800), {"loss": [value + 0.5 for value in noise(6, 350)]})
    assert len(trainer.get("/incidents")) == 1
    assert [one["state"] for one in trainer.get()["interventions"]] == ["verified"]


def test_a_policy_keeps_what_is_not_named(http: TestClient) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    http.put(f"{API}/runs/r1/policy", json={"patience": 20})
    assert (trainer.get()["policy"]["mode"], trainer.get()["policy"]["patience"]) == ("approve", 20)


def test_the_detection_of_a_run_can_be_set_with_its_policy(http: TestClient) -> None:
    trainer = Trainer(http)
    wish = {"mode": "observe", "detection": {"false_alarms_per_10k": 0.25}}
    assert http.put(f"{API}/runs/r1/policy", json=wish).json()["detection"] == {"false_alarms_per_10k": 0.25}
    assert trainer.get()["policy"]["detection"] == {"false_alarms_per_10k": 0.25}
    assert train_until_nan(trainer)["orders"] == []
    bad = http.put(f"{API}/runs/r1/policy", json={"detection": {"sensitivity": 2}})
    assert (bad.status_code, bad.json()["detail"]) == (422, "unknown detection settings: sensitivity")


def test_a_signal_that_the_stored_state_lacks_is_relearnt_from_the_stored_rows_before_it_is_used(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    norms = [1.0 + abs(value - 3.0) for value in noise(2, 400)]
    trainer.report(trainer.open("a"), range(400), {"loss": noise(1, 400), "grad_norm": norms})
    with Session(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        before = detection_state.bring_up(session, run).detectors.by_signal
        row = session.get_one(DetectionState, run.pk)
        detectors = row.state["detectors"]
        signals = {name: state for name, state in detectors["signals"].items() if name != "grad_norm"}
        row.state = row.state | {"detectors": detectors | {"signals": signals}}
        session.flush()
        after = detection_state.bring_up(session, run).detectors.by_signal
        assert after["loss"].state_dict() == before["loss"].state_dict()
        assert after["grad_norm"].baseline.count == detection_state.SNAPSHOT_EVERY
        assert after["grad_norm"].baseline.level == pytest.approx(before["grad_norm"].baseline.level, abs=0.01)
        session.rollback()
