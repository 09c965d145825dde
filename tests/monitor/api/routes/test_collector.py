"""The collector's identity, readiness and scorecard."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from db import migrate
from db.records.access import Scope
from db.store.engine import create_engine, writing
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient, collector
from tests.monitor.scenarios import CHECKPOINTS, noise, trained
from tests.monitor.scorecard import store_run
from tests.monitor.tokens import create_token


def test_a_token_says_what_it_allows_whatever_that_is(http: TestClient, sqlite_engine: sa.Engine) -> None:
    anybody = {"name": "anybody", "scopes": ["operate", "read", "report"], "project": None, "run": None}
    assert http.get(f"{API}/token").json() == anybody
    secret = create_token(sqlite_engine, "ci", Scope.REPORT, project="gpt")
    http.headers["authorization"] = f"Bearer {secret}"
    answer = http.get(f"{API}/token")
    assert answer.json() == {"name": "ci", "scopes": ["report"], "project": "gpt", "run": None}
    assert secret not in answer.text
    assert http.get(f"{API}/collector").json()["time"] == NOW


def test_a_database_without_its_schema_is_answered_with_503(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")  # no schema: every query fails
    http = collector(engine)
    answer = http.get(f"{API}/runs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["title"], ready.json()["where"]) == (503, "starting up", ["schema"])
    migrate.upgrade(engine)
    assert http.get("/readyz").status_code == 200
    engine.dispose()


@pytest.mark.parametrize("token", [None, "x" * 16])
def test_readyz_distinguishes_a_database_that_is_away_from_a_start(tmp_path: Path, token: str | None) -> None:
    engine = create_engine(f"postgresql://nobody@/nothing?host={tmp_path}")
    http = collector(engine, token=token if token else None)
    answer = http.get("/readyz", headers={"authorization": f"Bearer {token}"} if token else {})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.json()["title"], answer.json()["where"]) == ("the database is away", ["database"])
    assert token is None or "LOSSGUARD_DATABASE_URL" in answer.json()["detail"]
    assert http.get("/healthz").status_code == 200
    engine.dispose()


def store_runs(engine: sa.Engine, **projects: str) -> None:
    """A run in observe mode, with one site, for each id and project."""
    with writing(engine) as session:
        for run_id, project in projects.items():
            store_run(session, run_id, project=project, policy={"mode": "observe"})


def test_the_card_of_all_runs_of_a_project_and_of_one_run(http: TestClient, sqlite_engine: sa.Engine) -> None:
    store_runs(sqlite_engine, a="gpt", b="llama")
    assert http.get(f"{API}/scorecard").json()["totals"]["runs"] == 2
    card = http.get(f"{API}/scorecard?project=llama").json()
    assert list(card["projects"]) == ["llama"]
    assert card["sentence"].startswith("In auto it would have rolled back 1 time in 1 run")
    (run,) = http.get(f"{API}/scorecard?run=a").json()["runs"]
    assert run["sites"][0]["ending"] == "recovered"
    assert http.get(f"{API}/scorecard?since=4000000000").json()["runs"] == []
    assert http.get(f"{API}/scorecard?since=yesterday").status_code == 422
    unknown = http.get(f"{API}/scorecard?run=gone")
    assert (unknown.status_code, "gone" in unknown.json()["detail"]) == (404, True)


def test_a_token_of_one_project_or_run_gets_its_own_card_only(http: TestClient, sqlite_engine: sa.Engine) -> None:
    store_runs(sqlite_engine, a="gpt", b="llama", c="gpt")
    gpt = create_token(sqlite_engine, "gpt", Scope.READ, project="gpt")
    own = create_token(sqlite_engine, "own", Scope.READ, run="b")

    def runs(token: str, query: str = "") -> list[str]:
        answer = http.get(f"{API}/scorecard{query}", headers={"Authorization": f"Bearer {token}"})
        return sorted(run["id"] for run in answer.json()["runs"]) if answer.status_code == 200 else ["refused"]

    assert runs(gpt) == ["a", "c"]
    assert runs(gpt, "?project=llama") == []
    assert runs(own) == ["b"]
    assert runs(gpt, "?run=b") == runs(own, "?run=a") == ["refused"]


def test_a_spike_of_a_run_in_observe_mode_is_on_its_card(http: TestClient) -> None:
    """From reports to the card: the detection stores the proposal, the card reads it."""
    trainer, segment = trained(http, policy={"mode": "observe"})
    assert trainer.report(segment, [300], {"loss": [float("nan")]})["orders"] == []
    trainer.report(segment, range(301, 600), {"loss": noise(2, 299)})
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": NOW + 600})
    (site,) = http.get(f"{API}/scorecard?run=r1").json()["runs"][0]["sites"]
    assert (site["kind"], site["action"]["decided_step"], site["action"]["is_estimated"]) == ("nonfinite", 300, False)
    assert site["action"]["rewind_to"] in CHECKPOINTS
    assert site["ending"] == "recovered"
