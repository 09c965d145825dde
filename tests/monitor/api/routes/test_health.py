"""Whether the collector runs, and whether it is ready."""

from typing import Any

from pydantic import SecretStr

from db import migrate
from db.store.engine import create_engine
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import TestClient


def test_a_database_without_its_schema_is_answered_with_503(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")  # no schema: every query fails
    http = TestClient(create_app(Settings(), engine=engine))
    answer = http.get(f"{API}/runs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert http.get("/readyz").status_code == 503
    assert (http.get("/readyz").json()["title"], http.get("/readyz").json()["where"]) == ("starting up", ["schema"])
    migrate.upgrade(engine)
    assert http.get("/readyz").status_code == 200
    engine.dispose()


def test_readyz_distinguishes_a_database_that_is_away_from_a_start(tmp_path: Any) -> None:
    engine = create_engine(f"postgresql://nobody@/nothing?host={tmp_path}")
    http = TestClient(create_app(Settings(), engine=engine))
    headers = {"authorization": "Bearer " + "x" * 16}
    app = create_app(Settings(token=SecretStr("x" * 16)), engine=engine)
    answer = TestClient(app).get("/readyz", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.json()["title"], answer.json()["where"]) == ("the database is away", ["database"])
    assert "LOSSGUARD_DATABASE_URL" in answer.json()["detail"]
    assert http.get("/readyz").json()["title"] == "the database is away"
    assert http.get("/healthz").status_code == 200
    engine.dispose()
