"""Samples of the hardware, from a report to the API."""

from typing import Any

from lossguard.vocabulary.hardware import MAX_ERRORS
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient, Trainer


def sample(time: float, step: int | None = 7, **values: Any) -> dict[str, Any]:
    return {"time": NOW + time, "step": step, "host": "node-1", "device": "gpu0", "values": values}


def test_samples_come_back_as_they_were_reported(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [], {}, hardware=[sample(0, None, power=600.0), sample(15, ecc_errors=1.0)])
    assert trainer.get("/hardware") == [
        sample(0, None, power=600.0) | {"num_errors": 0},
        sample(15, ecc_errors=1.0) | {"num_errors": 1},
    ]
    assert [one["step"] for one in trainer.get("/hardware", errors=True)] == [7]
    assert trainer.get("/hardware", **{"from": NOW + 1, "to": NOW + 2}) == []


def test_a_broken_counter_of_errors_does_not_stop_the_reports_of_its_run(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [2.0]}, hardware=[sample(0, ecc_errors=2.0**64, xid_errors=-1.0)])
    (stored,) = trainer.get("/hardware")
    assert (stored["num_errors"], stored["values"]["ecc_errors"]) == (MAX_ERRORS, 2.0**64)


def test_an_unknown_run_and_a_value_that_is_no_number_are_refused(http: TestClient) -> None:
    assert http.get(f"{API}/runs/none/hardware").status_code == 404
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "hardware": [sample(0, power="NaN")]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "power" in str(answer.json()["where"])
