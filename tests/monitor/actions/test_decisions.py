"""A person approves, rejects, rolls back, and sets the policy."""

import pytest

from lossguard.vocabulary.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, train_until_nan, trained


@pytest.mark.parametrize(("verb", "state"), [("approve", "ordered"), ("reject", "rejected")])
def test_an_operator_is_asked_first_when_the_policy_requires_it(http: TestClient, verb: str, state: str) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    assert train_until_nan(trainer)["orders"] == []
    (intervention,) = trainer.get()["interventions"]
    assert intervention["state"] == "proposed"
    path = f"{API}/interventions/{intervention['id']}/{verb}"
    assert http.post(path).json()["state"] == state
    assert http.post(path).status_code == 409
    assert len(trainer.report(0, [], {})["orders"]) == (1 if verb == "approve" else 0)


def test_a_person_can_roll_back_with_a_lower_learning_rate_and_a_remedy(http: TestClient) -> None:
    trainer, _ = trained(http, capabilities=["rollback", "lr-scale", "remedy:clip"])
    path, changes = f"{API}/runs/r1/rollback", {"lr_scale": 0.5, "remedies": ["clip"]}
    for bad in ({"lr_scale": 0}, {"lr_scale": 1.5}, {"lr_scale": "NaN"}, {"remedies": "clip"}):
        assert http.post(path, json=bad).status_code == 422
    refused = http.post(path, json={"remedies": ["moments"]})
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "this run has not registered the remedy 'moments': its remedies are clip",
    )
    assert http.post(path, json={"rewind_to": 150, "reason": "the data was wrong", **changes}).status_code == 200
    (order,) = trainer.report(0, [], {})["orders"]
    assert order.items() >= {**changes, "rewind_to": 150}.items()
    assert "the data was wrong" in order["reason"]
    (intervention,) = trainer.get()["interventions"]
    assert intervention.items() >= changes.items()
    assert http.get(f"{API}/audit").json()[0]["details"].items() >= changes.items()


def test_a_person_can_hold_a_run_and_release_it(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(10), {"loss": noise(1, 10)})
    assert http.post(f"{API}/runs/r1/hold", json={"reason": "the disk is full"}).status_code == 200
    (order,) = trainer.report(0, [], {})["orders"]
    assert (order["kind"], order["approved_by"], order["reason"]) == ("hold", "anybody", "the disk is full")
    assert http.post(f"{API}/runs/r1/hold", json={}).status_code == 409
    assert http.post(f"{API}/runs/r1/release").status_code == 200
    assert [each["action"] for each in http.get(f"{API}/audit").json()] == ["release", "hold"]


def test_a_run_that_has_ended_cannot_be_held(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(10), {"loss": noise(1, 10)})
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": 1.0})
    answer = http.post(f"{API}/runs/r1/hold", json={})
    assert (answer.status_code, "there is nothing to hold" in answer.text) == (409, True)
    assert trainer.get()["interventions"] == []


def test_a_level_of_the_loss_can_be_accepted_as_the_new_normal_once(http: TestClient) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    segment, loss = trainer.open("a"), noise(1, 500)
    trainer.report(segment, range(300), {"loss": loss[:300]}, restorable_steps=CHECKPOINTS)
    trainer.report(segment, range(300, 500), {"loss": [each + 3.0 for each in loss[300:]]})
    path = f"{API}/runs/r1/accept-level"
    assert http.post(path).status_code == 200
    assert [each["state"] for each in trainer.get()["interventions"]] == ["withdrawn"]
    trainer.report(segment, range(500, 600), {"loss": [each + 3.0 for each in noise(2, 100)]})
    assert [each["state"] for each in http.get(f"{API}/runs/r1/incidents").json()] == ["closed"]
    assert http.post(path).status_code == 409


def test_a_level_is_accepted_at_the_first_step_of_a_process_that_has_resumed_and_not_stepped_yet(
    http: TestClient,
) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    loss = [each + 3.0 * (step >= 300) for step, each in enumerate(noise(1, 500))]
    trainer.report(trainer.open("a"), range(500), {"loss": loss}, restorable_steps=CHECKPOINTS)
    trainer.open("b", 480, "resume")
    assert http.post(f"{API}/runs/r1/accept-level").status_code == 200
    assert http.get(f"{API}/audit").json()[0]["details"] == {"step": 480}


def test_a_difference_of_recomputed_steps_can_be_accepted_once(http: TestClient) -> None:
    trainer = Trainer(http)
    batches = [float(step) for step in range(400)]
    trainer.report(trainer.open("a"), range(300), {"loss": noise(1, 300), "batch_index": batches[:300]})
    segment = trainer.open("b", 200, "resume")
    trainer.report(segment, range(200, 220), {"loss": noise(2, 20), "batch_index": batches[200:220]})
    path = f"{API}/runs/r1/accept-replay"
    assert http.post(path).status_code == 200
    (incident,) = trainer.get("/incidents")
    assert (incident["kind"], incident["state"], incident["end_step"]) == ("replay_mismatch", "closed", 207)
    assert http.post(path).status_code == 409
    entry = http.get(f"{API}/audit").json()[0]
    assert (entry["action"], entry["details"]) == ("accept-replay", {"incident": 1})


def test_a_rollback_by_hand_to_nowhere_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(10), {"loss": noise(1, 10)})
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 9}).status_code == 409


def test_the_detection_of_a_run_can_be_set_with_its_policy(http: TestClient) -> None:
    trainer = Trainer(http)
    fields = {"mode": "observe", "detection": {"false_alarms_per_10k": 0.25}}
    assert http.put(f"{API}/runs/r1/policy", json=fields).json()["detection"] == {"false_alarms_per_10k": 0.25}
    assert trainer.get()["policy"]["detection"] == {"false_alarms_per_10k": 0.25}
    assert train_until_nan(trainer)["orders"] == []
    bad = http.put(f"{API}/runs/r1/policy", json={"detection": {"sensitivity": 2}})
    assert (bad.status_code, bad.json()["detail"]) == (422, "unknown detection settings: sensitivity")
