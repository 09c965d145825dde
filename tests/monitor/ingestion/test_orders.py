"""What an order says of itself, the question before one, and what a trainer may say about one."""

import math
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

import lossguard
from db.models import Order, Run
from lossguard.vocabulary.orders import problem_with
from lossguard.vocabulary.protocol import API
from monitor.ingestion.orders import ASK_SECONDS, bad_rewind, bad_skip
from tests.monitor.client import NOW, Clock, TestClient, Trainer, collector
from tests.monitor.scenarios import ANSWERS_PREFLIGHT, CHECKPOINTS, noise, proposed, train_until_nan, trained

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def signing(engine: sa.Engine) -> TestClient:
    """A collector with a key, on SQLite and on PostgreSQL."""
    return collector(engine, clock=lambda: NOW + 0.25, order_key=KEY)


def why_not(order: dict[str, Any], run: str = "r1") -> str | None:
    received = lossguard.Order.from_wire(order)
    return problem_with(received.signature, received.signed, run, KEY)


def test_an_order_of_the_policy_says_what_it_is_about_and_until_when_it_counts(http: TestClient) -> None:
    (order,) = train_until_nan(Trainer(http))["orders"]
    assert (order["segment"], order["step"], order["approved_by"], order["signature"]) == ("a", 300, None, None)
    assert (order["expires_at"], order["expires_step"]) == (NOW + 3600, 10_300)


def test_a_change_that_the_collector_knows_does_not_outdate_its_order(http: TestClient) -> None:
    trainer, loss = Trainer(http), noise(1, 300)
    event = {"key": "e", "step": 300, "time": NOW, "kind": "data_mix", "details": {}}
    trainer.report(trainer.open("a"), range(300), {"loss": loss}, restorable_steps=CHECKPOINTS, events=[event])
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 150}).status_code == 200
    (order,) = trainer.report(0, [], {})["orders"]
    assert order["step"] == 300


def test_the_time_of_an_approved_order_runs_from_the_approval(http: TestClient, clock: Clock) -> None:
    trainer = Trainer(http)
    http.put(f"{API}/runs/r1/policy", json={"mode": "approve"})
    train_until_nan(trainer)
    clock.now += 7200
    (proposed,) = trainer.get()["interventions"]
    http.post(f"{API}/interventions/{proposed['id']}/approve")
    (order,) = trainer.report(0, [], {})["orders"]
    assert (order["approved_by"], order["expires_at"]) == ("anybody", NOW + 7200 + 3600)


@pytest.mark.parametrize(("key", "expires"), [(None, (None, None)), (SecretStr(KEY), (NOW + 3601, 10_300))])
def test_a_release_expires_only_if_it_is_signed(
    sqlite_engine: sa.Engine, key: SecretStr | None, expires: tuple[float | None, int | None]
) -> None:
    http = collector(sqlite_engine, clock=lambda: NOW + 0.25, order_key=key)
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(301), {"loss": [*noise(1, 300), math.nan]}, restorable_steps=[])
    (hold,) = trainer.report(0, [], {})["orders"]
    http.put(f"{API}/orders/{hold['id']}", json={"state": "applied", "key": hold["key"]})
    http.post(f"{API}/runs/r1/release")
    (release,) = trainer.report(0, [], {})["orders"]
    assert (hold["kind"], hold["expires_step"]) == ("hold", 10_300)
    assert (release["kind"], (release["expires_at"], release["expires_step"])) == ("release", expires)


def test_a_signed_order_is_believed_and_an_altered_one_is_not(signing: TestClient) -> None:
    trainer = Trainer(signing)
    train_until_nan(trainer)
    (order,) = trainer.report(0, [], {})["orders"]  # as it was read back from the store
    assert why_not(order) is None
    for change in ({"rewind_to": 0}, {"skip_to": 10**6}, {"approved_by": "ada"}, {"expires_at": NOW + 10**6}):
        assert "signature is wrong" in str(why_not(order | change))
    assert "signature is wrong" in str(why_not(order, run="r2"))
    (shown,) = trainer.get()["orders"]
    assert not {"key", "signature"} & shown.keys()


def test_an_order_that_somebody_wrote_into_the_store_stays_unsigned(signing: TestClient, engine: sa.Engine) -> None:
    trainer, _ = trained(signing)
    with engine.begin() as connection:
        forged = {"run_pk": 1, "key": "k", "intervention": 9, "kind": "rollback", "state": "open", "rewind_to": 0}
        forged |= {"reason": "", "created_at": NOW, "run_pk": connection.scalar(sa.text("SELECT pk FROM runs"))}
        connection.execute(sa.insert(Order), forged)
    trainer.report(0, [], {})
    with collector(engine, order_key=KEY) as restarted:
        (order,) = Trainer(restarted).report(0, [], {})["orders"]
    assert order["rewind_to"] == 0
    assert "it is not signed" in str(why_not(order))


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


ORDER = Order(id=7, rewind_to=200, skip_from=200, skip_to=400)
RUN = Run(id="r", restorable_steps=[0, 100, 150])


@pytest.mark.parametrize(("step", "fits"), [(200, True), (150, True), (0, True), (149, False), (201, False)])
def test_a_rollback_ends_at_the_ordered_step_or_at_an_older_checkpoint(step: int, fits: bool) -> None:
    assert (bad_rewind(RUN, ORDER, step) is None) == fits
    assert "not at or before it" in (bad_rewind(RUN, Order(id=7), step) or ""), "an order may name no step"


@pytest.mark.parametrize(
    ("skip_from", "skip_to", "fits"),
    [
        (200, 400, True),
        (None, None, True),
        (100, 500, True),
        (100, 501, False),
        (0, 2**62 - 1, False),
        (201, 400, False),
        (200, 399, False),
        (200, None, False),
        (None, 400, False),
    ],
)
def test_the_skipped_batches_are_the_ordered_ones_or_a_few_more(
    skip_from: int | None, skip_to: int | None, fits: bool
) -> None:
    assert (bad_skip(ORDER, skip_from, skip_to) is None) == fits
    nothing = bad_skip(Order(id=7, rewind_to=200), skip_from, skip_to)
    assert nothing is None if skip_from is skip_to is None else "skips no batches" in str(nothing)
