"""A trainer's answer to an order, and the arms that it has tried."""

import math
from typing import Any

import pytest
import sqlalchemy as sa

from db import queries
from db.store.engine import reading
from lossguard.vocabulary.protocol import API, ARMS
from lossguard.vocabulary.states import Arm, IncidentKind
from lossguard.vocabulary.wire import ArmResult, ArmsTried
from monitor.ingestion.run_state import detection_state
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def ordered(http: TestClient, **policy: Any) -> tuple[Trainer, dict[str, Any]]:
    """A run with an order."""
    trainer = Trainer(http)
    if policy:
        assert http.put(f"{API}/runs/r1/policy", json=policy).status_code == 200
    (order,) = train_until_nan(trainer)["orders"]
    return trainer, order


def answer(http: TestClient, order: dict[str, Any], state: str = "applied", **values: Any) -> Any:
    return http.put(f"{API}/orders/{order['id']}", json={"state": state, "key": order["key"]} | values)


def states(trainer: Trainer) -> list[str]:
    return [each["state"] for each in trainer.get()["interventions"]]


def test_an_answer_to_an_order_of_another_store_is_refused(http: TestClient) -> None:
    _, order = ordered(http)
    assert answer(http, order, "failed", key="an older one").status_code == 409
    assert answer(http, order, "failed").status_code == 200


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
    failed = "the remedy 'moments' could not be applied: no such group"
    assert answer(http, second, rewound_to=second["rewind_to"], detail=failed).status_code == 200
    assert trainer.get()["orders"][1]["detail"] == failed


def test_an_executed_order_is_recorded_though_it_was_withdrawn_meanwhile(http: TestClient) -> None:
    trainer, first = ordered(http, name="palm")
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 200
    assert answer(http, first, rewound_to=200, skip_from=200, skip_to=400).status_code == 200
    assert [(entry["skip_from"], entry["skip_to"]) for entry in trainer.get()["skip_ledger"]] == [(200, 400)]


def test_a_run_that_lost_its_guard_still_gets_what_is_open_and_after_its_refusal_no_more_orders(
    http: TestClient,
) -> None:
    (trainer, order), why = ordered(http), "the guard has failed (KeyError: 'x')"
    Trainer(http, capabilities=[f"no-rollback:{why}"])
    assert [one["id"] for one in trainer.report(0, [301], {"loss": [float("nan")]})["orders"]] == [order["id"]]
    assert answer(http, order, "failed", detail=why, refusal="observes").status_code == 200
    assert trainer.report(0, range(302, 340), {"loss": [float("nan")] * 38})["orders"] == []
    assert states(trainer) == ["failed"]
    assert why in str(trainer.get("/incidents")[0]["details"])
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 50}).status_code == 409


def test_an_order_stays_open_when_the_trainer_restarts_before_it_executes_it(http: TestClient) -> None:
    trainer, order = ordered(http)
    segment = trainer.open("b", 300, "resume")
    assert [one["id"] for one in trainer.report(segment, [], {})["orders"]] == [order["id"]]
    assert states(trainer) == ["ordered"]
    assert answer(http, order, "failed", detail="no intact checkpoint").status_code == 200
    assert states(trainer) == ["failed"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
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
    trainer, order = ordered(http)
    figures = {"rewound_to": order["rewind_to"], "skip_from": order["skip_from"], "skip_to": order["skip_to"]}
    refused = answer(http, order, **figures | change)
    assert (refused.status_code, refused.json()["where"]) == (409, ["body", where])
    assert trainer.report(0, [], {})["orders"] == [order]
    assert trainer.get()["skip_ledger"] == []
    assert http.get(f"{API}/audit").json() == []
    assert f"refused: the answer of 'anybody' to order {order['id']} of the run 'r1': " in caplog.text


def test_an_answer_fits_the_segment_that_carried_the_order_out(http: TestClient) -> None:
    trainer, order = ordered(http)
    trainer.open("b", 150, "rollback", order["id"])
    assert "begins at step 150" in answer(http, order, rewound_to=100).json()["detail"]
    assert answer(http, order, rewound_to=150).status_code == 200


@pytest.mark.parametrize("compared", [True, False])
def test_an_answer_says_whether_samples_are_compared_with_those_that_are_skipped(
    http: TestClient, compared: bool
) -> None:
    trainer, order = ordered(http, name="palm")
    trainer.open("b", order["rewind_to"], "rollback", order["id"])
    assert answer(http, order, rewound_to=order["rewind_to"], compared=compared).status_code == 200
    (intervention,) = trainer.get()["interventions"]
    assert intervention["details"]["compared"] is compared


def test_an_answer_to_a_hold_names_no_step(http: TestClient) -> None:
    _, hold = ordered(http, budget_per_run=0)
    refused = answer(http, hold, rewound_to=1)
    assert (hold["kind"], refused.status_code) == ("hold", 409)
    assert "goes back to no step" in refused.json()["detail"]
    assert answer(http, hold).status_code == 200


def test_every_answer_is_in_the_audit_trail(http: TestClient) -> None:
    trainer, order = ordered(http)
    obey(trainer, order)
    (line,) = http.get(f"{API}/audit?run=r1").json()
    assert (line["who"], line["action"]) == ("anybody", "answer")
    said = {"order": order["id"], "kind": "rollback", "state": "applied"}
    said |= {"rewound_to": order["rewind_to"], "skip_to": order["skip_to"]}
    assert said.items() <= line["details"].items()


def test_a_refusal_is_recorded_and_a_person_is_asked(http: TestClient) -> None:
    trainer, order = ordered(http)
    assert answer(http, order, "failed", detail="nobody has approved it", refusal="approval").status_code == 200
    assert states(trainer) == ["failed", "proposed"]
    assert trainer.get()["orders"][0]["refusal"] == "approval"
    http.post(f"{API}/interventions/{trainer.get()['interventions'][1]['id']}/approve")
    (again,) = trainer.report(0, [], {})["orders"]
    assert (again["rewind_to"], again["approved_by"]) == (order["rewind_to"], "anybody")


def test_a_refusal_that_a_later_release_knows_counts_as_a_failure(http: TestClient) -> None:
    trainer, order = ordered(http)
    assert answer(http, order, "failed", refusal="weather").status_code == 200
    assert states(trainer) == ["failed"]


def test_a_run_whose_trainer_wants_approvals_is_asked_about_first(http: TestClient) -> None:
    trainer = Trainer(http, capabilities=["rollback", "limits:mode=approve,max_depth=2000"])
    assert train_until_nan(trainer)["orders"] == []
    assert states(trainer) == ["proposed"]


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
    assert "loss of an arm is missing" in answer.text
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
            records = detection_state.load(session, run).records
            tried = records.tried(IncidentKind.NONFINITE, Arm.REWIND, tier="memory", depth=50)
            assert (tried.num, tried.num_past) == (num, num)
