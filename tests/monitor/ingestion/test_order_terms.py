"""What an order says of itself, and that only the collector can have said it."""

import math
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from db.models import Order as OrderRow
from lossguard import Order
from lossguard.vocabulary.orders import problem_with
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, Clock, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, train_until_nan

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def signing(engine: sa.Engine) -> TestClient:
    """A collector with a key, on SQLite and on PostgreSQL."""
    return TestClient(create_app(Settings(order_key=SecretStr(KEY)), engine=engine, clock=lambda: NOW + 0.25))


def why_not(order: dict[str, Any], run: str = "r1") -> str | None:
    received = Order.from_wire(order)
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


def test_a_release_does_not_expire(http: TestClient) -> None:
    assert _terms_of_a_release(http) == (None, None)


def test_a_signed_release_expires(signing: TestClient) -> None:
    assert _terms_of_a_release(signing) == (NOW + 3601, 10_300)


def _terms_of_a_release(http: TestClient) -> tuple[float | None, int | None]:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(301), {"loss": [*noise(1, 300), math.nan]}, restorable_steps=[])
    (hold,) = trainer.report(0, [], {})["orders"]
    http.put(f"{API}/orders/{hold['id']}", json={"state": "applied", "key": hold["key"]})
    http.post(f"{API}/runs/r1/release")
    (release,) = trainer.report(0, [], {})["orders"]
    assert (hold["kind"], hold["expires_step"]) == ("hold", 10_300)
    assert release["kind"] == "release"
    return release["expires_at"], release["expires_step"]


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
    trainer = Trainer(signing)
    trainer.report(trainer.open("a"), range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS)
    with engine.begin() as connection:
        forged = {"run_pk": 1, "key": "k", "intervention": 9, "kind": "rollback", "state": "open", "rewind_to": 0}
        forged |= {"reason": "", "created_at": NOW, "run_pk": connection.scalar(sa.text("SELECT pk FROM runs"))}
        connection.execute(sa.insert(OrderRow), forged)
    trainer.report(0, [], {})
    with TestClient(create_app(Settings(order_key=SecretStr(KEY)), engine=engine, clock=lambda: NOW)) as restarted:
        (order,) = Trainer(restarted).report(0, [], {})["orders"]
    assert order["rewind_to"] == 0
    assert "it is not signed" in str(why_not(order))
