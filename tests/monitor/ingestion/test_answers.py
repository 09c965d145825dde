"""A trainer answers an order."""

from lossguard.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import train_until_nan


def test_an_answer_to_an_order_of_another_store_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    answer = http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": "an older one"})
    assert answer.status_code == 409
    assert http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": order["key"]}).status_code == 200


def test_an_executed_order_is_recorded_though_it_was_withdrawn_meanwhile(http: TestClient) -> None:
    trainer = Trainer(http)
    (first,) = train_until_nan(trainer)["orders"]
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 200
    answer = {"state": "applied", "key": first["key"], "rewound_to": 200, "skip_from": 200, "skip_to": 400}
    assert http.put(f"{API}/orders/{first['id']}", json=answer).status_code == 200
    assert [(entry["skip_from"], entry["skip_to"]) for entry in trainer.get()["skip_ledger"]] == [(200, 400)]


def test_an_order_stays_open_when_the_trainer_restarts_before_it_executes_it(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    segment = trainer.open("b", 300, "resume")
    assert [one["id"] for one in trainer.report(segment, [], {})["orders"]] == [order["id"]]
    assert [one["state"] for one in trainer.get()["interventions"]] == ["ordered"]
    answer = {"state": "failed", "key": order["key"], "detail": "no intact checkpoint"}
    response = http.put(f"{API}/orders/{order['id']}", json=answer)
    assert response.status_code == 200, response.text
    assert trainer.get()["interventions"][0]["state"] == "failed"
