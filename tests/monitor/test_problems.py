"""Bad input is answered with what was wrong and where, and nothing of it is stored."""

from typing import Any

import pytest
import sqlalchemy as sa

from db import migrate
from db.models import BlockValues
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API
from tests import postgres
from tests.monitor.client import TestClient, Trainer, collector

GOOD: dict[str, Any] = {"segment": 0, "steps": [0, 1], "times": [1.0, 2.0], "metrics": {"loss": [1.0, 2.0]}}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"metrics": {"loss": [1.0]}}, ["metrics", "loss"]),
        ({"metrics": {"loss": [1.0, "oops"]}}, ["metrics", "loss", 1]),
        ({"metrics": {"loss": [1.0, True]}}, ["metrics", "loss", 1]),
        ({"metrics": {"loss": [1.0, [2.0]]}}, ["metrics", "loss", 1]),
        ({"metrics": {"loss": [1.0, 10**400]}}, ["metrics", "loss", 1]),
        ({"metrics": {"tokens": [1.0, 1e30]}}, ["metrics", "tokens", 1]),
        ({"metrics": {"batch_index": [1, 2**63]}}, ["metrics", "batch_index", 1]),
        ({"steps": [1, 0]}, ["steps", 1]),
        ({"steps": [1, 1]}, ["steps", 1]),
        ({"steps": [-1, 0]}, ["body", "steps", 0]),
        ({"steps": ["x", 0]}, ["body", "steps", 0]),
        ({"times": [1.0]}, ["times"]),
        ({"times": [1.0, "NaN"]}, ["body", "times", 1]),
        ({"segment": 7}, ["segment"]),
        ({"surprise": 1}, ["body", "surprise"]),
        ({"metrics": {"": [1.0, 2.0]}}, ["body", "metrics", "", "[key]"]),
    ],
)
def test_a_malformed_report_gets_what_and_where(
    http: TestClient, change: dict[str, Any], where: list[str | int]
) -> None:
    trainer = Trainer(http)
    trainer.open("a")
    answer = http.post(f"{API}/runs/r1/reports", json=GOOD | change)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["where"] == where
    assert answer.json()["detail"]
    assert trainer.get()["newest_step"] is None


def test_a_body_without_its_header_gets_its_name(http: TestClient) -> None:
    Trainer(http).open("a")
    answer = http.put(f"{API}/runs/r1/policy", content=b'{"mode": "observe"}')
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["", "/incidents", "/series?metric=loss"])
def test_an_unknown_run_is_not_found(http: TestClient, path: str) -> None:
    answer = http.get(f"{API}/runs/nobody{path}")
    assert answer.status_code == 404
    assert "nobody" in answer.json()["detail"]


def test_a_report_to_an_unknown_run_or_order_is_not_found(http: TestClient) -> None:
    assert http.post(f"{API}/runs/nobody/reports", json=GOOD).status_code == 404
    assert http.put(f"{API}/orders/99", json={"state": "applied", "key": "k"}).status_code == 404
    assert http.post(f"{API}/interventions/99/approve").status_code == 404


def test_a_run_id_that_would_not_fit_in_a_path_is_refused(http: TestClient) -> None:
    body = {"id": "a/b", "project": "p", "started_at": 1.0}
    assert http.post(f"{API}/runs", json=body).status_code == 422


def test_a_damaged_block_of_steps_is_named_and_the_rest_of_the_run_is_served(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(600), {"loss": [1.0] * 600, "lr": [0.1] * 600})
    with sqlite_engine.begin() as connection:
        connection.execute(sa.update(BlockValues).where(BlockValues.metric == 0).values(values=b"\x01cut"))
    answer = http.get(f"{API}/runs/{trainer.run_id}/series", params={"metric": "loss"})
    assert (answer.status_code, answer.json()["title"]) == (500, "the store is damaged")
    assert "segment 0, steps 0 to 599, is damaged" in answer.json()["detail"]
    assert trainer.get("/series", metric="lr", points=1)["count"] == [600]


@pytest.mark.needs("postgresql")
def test_a_report_without_a_partition_is_refused_in_one_sentence_until_an_upgrade_has_made_it(
    postgres_server: postgres.Server, migrated_template: str
) -> None:
    engine = create_engine(postgres_server.create_database("no_partition", template=migrated_template))

    def body(first: int) -> dict[str, Any]:
        steps = list(range(first, first + 600))
        return {
            "segment": 0,
            "steps": steps,
            "times": [float(step) for step in steps],
            "metrics": {"loss": [2.0] * 600},
        }

    with collector(engine) as http:
        trainer = Trainer(http)
        trainer.open("a")
        reports = f"{API}/runs/r1/reports"
        assert http.post(reports, json=body(0)).status_code == 200
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE step_blocks_0, block_values_0")
        refused = http.post(reports, json=body(600))
        assert refused.status_code == 503
        detail = "the database does not have a partition of its tables; if no migration is running, run: {}"
        assert refused.json()["detail"] == detail.format("python -m db upgrade")
        migrate.upgrade(engine)
        assert http.post(reports, json=body(600)).status_code == 200
        assert trainer.get()["newest_step"]["step"] == 1199
    engine.dispose()
    postgres_server.drop_database("no_partition")
