import sqlalchemy as sa

from db.records.access import Scope
from lossguard.vocabulary.protocol import API
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient
from tests.monitor.tokens import create_token


def test_a_token_says_what_it_allows_whatever_that_is(sqlite_engine: sa.Engine) -> None:
    http = TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW))
    secret = create_token(sqlite_engine, "ci", Scope.REPORT, project="gpt")
    headers = {"authorization": f"Bearer {secret}"}
    answer = http.get(f"{API}/token", headers=headers).json()
    assert answer == {"name": "ci", "scopes": ["report"], "project": "gpt", "run": None}
    assert http.get(f"{API}/collector", headers=headers).json()["time"] == NOW
    assert secret not in str(answer)


def test_an_open_collector_says_that_anybody_may_do_everything(http: TestClient) -> None:
    answer = http.get(f"{API}/token").json()
    assert answer == {"name": "anybody", "scopes": ["operate", "read", "report"], "project": None, "run": None}
