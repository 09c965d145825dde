"""The trainer is asked while a rollback waits for approval, and what it answers is kept."""

from typing import Any

import pytest

from lossguard.vocabulary.protocol import API
from monitor.ingestion.preflights import ASK_SECONDS
from tests.monitor.client import Clock, TestClient, Trainer
from tests.monitor.scenarios import ANSWERS_PREFLIGHT, proposed


def shown(http: TestClient, trainer: Trainer) -> dict[str, Any]:
    number = trainer.get()["interventions"][-1]["id"]
    found: dict[str, Any] = http.get(f"{API}/interventions/{number}/preflight").json()
    return found


def test_the_trainer_is_asked_until_it_answers_and_again_later(http: TestClient, clock: Clock) -> None:
    trainer, answer = proposed(http, capabilities=ANSWERS_PREFLIGHT)
    question = answer["preflight"]
    row = trainer.get()["interventions"][-1]
    assert {name: question[name] for name in ("step", "skip_from", "skip_to")} == {
        "step": row["rewind_to"], "skip_from": row["skip_from"], "skip_to": row["skip_to"],
    }  # fmt: skip
    assert trainer.report(0, [], {})["preflight"] == question  # it has not answered
    assert shown(http, trainer)["restorable"] is None

    found = {"id": question["id"], "tier": "disk", "texts": [{"batch": 300, "text": "the cat"}]}
    answer = trainer.report(0, [], {}, restorable_steps=[0, 250], preflight=found)
    assert "preflight" not in answer
    result = shown(http, trainer)
    assert (result["restorable"], result["tier"], result["run"], result["incident"]) == (True, "disk", "r1", 1)
    assert result["texts"] == [{"batch": 300, "text": "the cat"}]
    assert (result["expires_seconds"], result["expires_step"]) == (3600.0, 10_300)

    clock.now += ASK_SECONDS
    again = trainer.report(0, [], {})["preflight"]
    assert again["id"] != question["id"]
    late = {"id": question["id"], "problem": "gone"}  # from a spool that waited
    assert trainer.report(0, [], {}, restorable_steps=[0], preflight=late)["preflight"] == again
    assert shown(http, trainer)["restorable"] is True
    trainer.report(0, [], {}, restorable_steps=[0], preflight={"id": again["id"], "problem": "the folder is gone"})
    result = shown(http, trainer)
    assert result["restorable"] is False
    assert "the folder is gone" in result["asked"]


def test_a_trainer_that_answers_no_questions_is_not_asked(http: TestClient) -> None:
    trainer, answer = proposed(http)
    assert "preflight" not in answer
    assert "release does not answer" in shown(http, trainer)["asked"]


def test_a_run_that_is_only_observed_is_not_asked(http: TestClient) -> None:
    trainer, answer = proposed(http, capabilities=ANSWERS_PREFLIGHT)
    assert "preflight" in answer
    assert http.put(f"{API}/runs/r1/policy", json={"mode": "observe"}).status_code == 200
    assert "preflight" not in trainer.report(0, [], {})
    assert http.put(f"{API}/runs/r1/policy", json={"mode": "approve"}).status_code == 200
    assert "preflight" in trainer.report(0, [], {})
    Trainer(http, capabilities=[*ANSWERS_PREFLIGHT, "limits:mode=observe"])
    assert "preflight" not in trainer.report(0, [], {})


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_nobody_asks_once_a_person_has_decided(http: TestClient, verb: str) -> None:
    trainer, answer = proposed(http, capabilities=ANSWERS_PREFLIGHT)
    assert "preflight" in answer
    http.post(f"{API}/interventions/{trainer.get()['interventions'][-1]['id']}/{verb}")
    assert "preflight" not in trainer.report(0, [], {})


def test_an_answer_that_is_too_long_is_refused_and_an_unknown_intervention_is_not_found(http: TestClient) -> None:
    _, answer = proposed(http, capabilities=ANSWERS_PREFLIGHT)
    body = {"segment": 0, "restorable_steps": [], "preflight": {"id": answer["preflight"]["id"], "problem": "x" * 501}}
    assert http.post(f"{API}/runs/r1/reports", json=body).status_code == 422
    assert http.get(f"{API}/interventions/999/preflight").status_code == 404
