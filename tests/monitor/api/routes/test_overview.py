import sqlalchemy as sa

from db.records.access import Scope
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import proposed
from tests.monitor.tokens import create_token


def test_a_list_says_where_each_run_stands(http_on_both: TestClient) -> None:
    Trainer(http_on_both, "quiet", config={"tags": ["a"], "lr": 1.0}, started_at=NOW + 1)
    proposed(http_on_both, total_steps=1000)
    first, second = http_on_both.get(f"{API}/overview").json()
    assert (first["id"], first["step"], first["metrics"], first["tags"]) == ("quiet", None, {}, ["a"])
    assert (second["id"], second["step"], second["metrics"]["loss"]) == ("r1", 300, "NaN")
    assert (second["open_incidents"], second["waiting"], second["total_steps"]) == (1, 1, 1000)
    assert "config" not in first
    with_config = http_on_both.get(f"{API}/overview?project=gpt&config=true").json()
    assert with_config[0]["config"]["lr"] == 1.0
    assert http_on_both.get(f"{API}/overview?project=other").json() == []


def test_a_bound_token_lists_its_own_runs_only(sqlite_engine: sa.Engine) -> None:
    http = TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW))
    Trainer(http, "one")
    Trainer(http, "two", project="other")
    for bound, listed in (({"project": "other"}, ["two"]), ({"run": "one"}, ["one"])):
        secret = create_token(sqlite_engine, str(bound), Scope.READ, **bound)
        answer = http.get(f"{API}/overview", headers={"authorization": f"Bearer {secret}"}).json()
        assert [each["id"] for each in answer] == listed
