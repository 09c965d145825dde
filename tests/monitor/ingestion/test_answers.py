"""A trainer answers an order."""

from typing import Any

import pytest

from lossguard.vocabulary.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def test_an_answer_to_an_order_of_another_store_is_refused(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    answer = http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": "an older one"})
    assert answer.status_code == 409
    assert http.put(f"{API}/orders/{order['id']}", json={"state": "failed", "key": order["key"]}).status_code == 200


def test_an_order_names_the_remedies_that_the_policy_switches_on(http: TestClient) -> None:
    """A replay without a skip did not help, so the moments may be damaged in the checkpoint too."""
    trainer = Trainer(http, capabilities=["rollback", "remedy:moments", "remedy:clip", "something newer"])
    segment, nan = trainer.open("a"), float("nan")
    restorable = [*range(0, 300, 50), 290, 295]
    trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=restorable)
    (first,) = trainer.report(segment, [300], {"loss": [nan]})["orders"]
    again, losses = obey(trainer, first), noise(2, 300 - first["rewind_to"])
    (second,) = trainer.report(again, range(first["rewind_to"], 301), {"loss": [*losses, nan]})["orders"]
    assert (first["remedies"], second["remedies"]) == ([], ["moments"])
    for part in ("interventions", "orders"):
        assert [row["remedies"] for row in trainer.get()[part]] == [[], ["moments"]]
    failed = {"detail": "the remedy 'moments' could not be applied: no such group"}
    answer = {"state": "applied", "key": second["key"], "rewound_to": second["rewind_to"], **failed}
    assert http.put(f"{API}/orders/{second['id']}", json=answer).status_code == 200
    assert trainer.get()["orders"][1]["detail"] == failed["detail"]


def test_an_executed_order_is_recorded_though_it_was_withdrawn_meanwhile(http: TestClient) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"name": "palm"})
    (first,) = train_until_nan(trainer)["orders"]
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 200
    answer = {"state": "applied", "key": first["key"], "rewound_to": 200, "skip_from": 200, "skip_to": 400}
    assert http.put(f"{API}/orders/{first['id']}", json=answer).status_code == 200
    assert [(entry["skip_from"], entry["skip_to"]) for entry in trainer.get()["skip_ledger"]] == [(200, 400)]


def test_a_run_that_lost_its_guard_still_gets_what_is_open_and_after_its_refusal_no_more_orders(
    http: TestClient,
) -> None:
    trainer, why = Trainer(http), "the guard has failed (KeyError: 'x')"
    (order,) = train_until_nan(trainer)["orders"]
    Trainer(http, capabilities=[f"no-rollback:{why}"])
    assert [one["id"] for one in trainer.report(0, [301], {"loss": [float("nan")]})["orders"]] == [order["id"]]
    answer = {"state": "failed", "key": order["key"], "detail": why, "refusal": "observes"}
    assert http.put(f"{API}/orders/{order['id']}", json=answer).status_code == 200
    assert trainer.report(0, range(302, 340), {"loss": [float("nan")] * 38})["orders"] == []
    assert [one["state"] for one in trainer.get()["interventions"]] == ["failed"]
    assert why in str(trainer.get("/incidents")[0]["details"])
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 409


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


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"key": None}, "key"),
        ({"key": "0123456789abcdef"}, "key"),
        ({"rewound_to": 2**52}, "rewound_to"),
        ({"rewound_to": 201}, "rewound_to"),
        ({"rewound_to": 199}, "rewound_to"),
        ({"skip_from": 0, "skip_to": 2**53 - 1}, "skip_from"),
        ({"skip_from": 10_000, "skip_to": 10_100}, "skip_from"),
    ],
)
def test_a_forged_answer_is_refused_and_the_trainer_still_gets_the_order(
    http: TestClient, change: dict[str, Any], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    figures = {name: order[name] for name in ("key", "skip_from", "skip_to")}
    answer = {"state": "applied", "rewound_to": order["rewind_to"]} | figures | change
    refused = http.put(f"{API}/orders/{order['id']}", json=answer)
    assert (refused.status_code, refused.json()["where"]) == (409, ["body", where])
    assert trainer.report(0, [], {})["orders"] == [order]
    assert trainer.get()["skip_ledger"] == []
    assert http.get(f"{API}/audit").json() == []
    assert f"refused: the answer of 'anybody' to order {order['id']} of the run 'r1': " in caplog.text


def test_an_answer_fits_the_segment_that_carried_the_order_out(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    trainer.open("b", 150, "rollback", order["id"])
    answer = {"state": "applied", "key": order["key"], "rewound_to": 100}
    path = f"{API}/orders/{order['id']}"
    assert "begins at step 150" in http.put(path, json=answer).json()["detail"]
    assert http.put(path, json=answer | {"rewound_to": 150}).status_code == 200


@pytest.mark.parametrize("compared", [True, False])
def test_an_answer_says_whether_samples_are_compared_with_those_that_are_skipped(
    http: TestClient, compared: bool
) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"name": "palm"})
    (order,) = train_until_nan(trainer)["orders"]
    trainer.open("b", order["rewind_to"], "rollback", order["id"])
    answer = {"state": "applied", "key": order["key"], "rewound_to": order["rewind_to"], "compared": compared}
    assert http.put(f"{API}/orders/{order['id']}", json=answer).status_code == 200
    (intervention,) = trainer.get()["interventions"]
    assert intervention["details"]["compared"] is compared


def test_an_answer_to_a_hold_names_no_step(http: TestClient) -> None:
    trainer = Trainer(http)
    assert http.put(f"{API}/runs/r1/policy", json={"budget_per_run": 0}).status_code == 200
    (hold,) = train_until_nan(trainer)["orders"]
    answer, path = {"state": "applied", "key": hold["key"]}, f"{API}/orders/{hold['id']}"
    refused = http.put(path, json=answer | {"rewound_to": 1})
    assert (hold["kind"], refused.status_code) == ("hold", 409)
    assert "goes back to no step" in refused.json()["detail"]
    assert http.put(path, json=answer).status_code == 200


def test_every_answer_is_in_the_audit_trail(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    obey(trainer, order)
    (line,) = http.get(f"{API}/audit?run=r1").json()
    details = {name: line["details"][name] for name in ("order", "kind", "state", "rewound_to", "skip_to")}
    assert (line["who"], line["action"]) == ("anybody", "answer")
    assert details == {"order": order["id"], "kind": "rollback", "state": "applied"} | {
        "rewound_to": order["rewind_to"],
        "skip_to": order["skip_to"],
    }


def test_a_refusal_is_recorded_and_a_person_is_asked(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    answer = {"state": "failed", "key": order["key"], "detail": "nobody has approved it", "refusal": "approval"}
    assert http_on_both.put(f"{API}/orders/{order['id']}", json=answer).status_code == 200
    refused, proposed = trainer.get()["interventions"]
    assert (refused["state"], proposed["state"]) == ("failed", "proposed")
    assert trainer.get()["orders"][0]["refusal"] == "approval"
    http_on_both.post(f"{API}/interventions/{proposed['id']}/approve")
    (again,) = trainer.report(0, [], {})["orders"]
    assert (again["rewind_to"], again["approved_by"]) == (order["rewind_to"], "anybody")


def test_a_refusal_that_a_later_release_knows_counts_as_a_failure(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    answer = {"state": "failed", "key": order["key"], "refusal": "weather"}
    assert http.put(f"{API}/orders/{order['id']}", json=answer).status_code == 200
    assert [each["state"] for each in trainer.get()["interventions"]] == ["failed"]


def test_a_run_whose_trainer_wants_approvals_is_asked_about_first(http: TestClient) -> None:
    trainer = Trainer(http, capabilities=["rollback", "limits:mode=approve,max_depth=2000"])
    assert train_until_nan(trainer)["orders"] == []
    assert [each["state"] for each in trainer.get()["interventions"]] == ["proposed"]
