"""A token allows what its scopes allow and nothing else; the audit trail says who did what."""

import asyncio
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.types import Message

from db.models import Token
from db.records import access
from db.records.access import Scope
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API
from monitor.api.auth import MAX_FAILED_ATTEMPTS, FailedAttempts
from tests.monitor.client import NOW, TestClient, Trainer, collector
from tests.monitor.scenarios import train_until_nan
from tests.monitor.tokens import TokenClient, create_token


@pytest.fixture
def http(sqlite_engine: sa.Engine) -> TestClient:
    """A collector with one run, of project gpt, that was made before there was any token."""
    client = collector(sqlite_engine)
    Trainer(client).open("a")
    return client


RUN = {"id": "r1", "project": "gpt", "started_at": 1.0}
ASKS: dict[Scope, list[tuple[str, str, Any]]] = {
    Scope.READ: [("GET", "/runs", None), ("GET", "/runs/r1", None), ("GET", "/runs/r1/series?metric=loss", None)],
    Scope.REPORT: [("POST", "/runs", RUN), ("POST", "/runs/r1/reports", {"segment": 0})],
    Scope.OPERATE: [
        ("PUT", "/runs/r1/policy", {"mode": "observe"}),
        ("POST", "/runs/r1/hold", {}),
        ("POST", "/runs/r1/notes", {"text": "x"}),
        ("DELETE", "/runs/r1/lease", None),
        ("GET", "/audit", None),
    ],
}


@pytest.mark.parametrize("scope", Scope)
def test_a_token_allows_its_scope_only(http: TestClient, sqlite_engine: sa.Engine, scope: Scope) -> None:
    client = TokenClient(http, create_token(sqlite_engine, "t", scope))
    for wanted, asks in ASKS.items():
        for ask in asks:
            assert client.status(*ask) in ((200, 201, 204) if wanted is scope else (403,)), ask


def test_no_route_but_healthz_answers_without_a_token(http: TestClient, sqlite_engine: sa.Engine) -> None:
    create_token(sqlite_engine, "t", Scope.READ)
    app: Any = http.app
    paths = app.openapi()["paths"]
    asks = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(asks) >= 18
    for method, path in [*asks, ("get", "/docs"), ("get", "/openapi.json")]:
        # There are more routes than failed attempts are allowed.
        app.state.collector.failed_attempts = FailedAttempts(delay=0)
        real = path.format(run_id="r1", order_id=1, intervention_id=1, number=1, note_id=1)
        assert http.request(method, real).status_code == (200 if path == "/healthz" else 401), (method, path)


@pytest.mark.parametrize("token", [[], [(b"authorization", b"Bearer lg_wrong")]])
def test_no_byte_of_a_body_is_read_before_the_token_is_checked(
    http: TestClient, sqlite_engine: sa.Engine, token: list[tuple[bytes, bytes]]
) -> None:
    """Four bodies of 16 MiB without a token took 1.4 GB and every place."""
    create_token(sqlite_engine, "t", Scope.REPORT)
    headers = [(b"content-length", b"16777216"), (b"content-type", b"application/json"), *token]
    scope = {"type": "http", "method": "POST", "path": f"{API}/runs", "query_string": b"", "headers": headers}
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("it was read")

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        await http.app(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 401
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]


def test_who_may_not_send_a_body_does_not_learn_what_is_wrong_with_it(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    client = TokenClient(http, create_token(sqlite_engine, "t", Scope.READ))
    assert client.status("POST", "/runs", {"wrong": 1}) == 403
    bound = TokenClient(http, create_token(sqlite_engine, "bert only", *Scope, project="bert"))
    assert bound.status("POST", "/runs/r1/reports", {"wrong": 1}) == 404


def test_a_path_that_does_not_exist_says_so_only_to_those_with_a_token(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    client = TokenClient(http, create_token(sqlite_engine, "t", Scope.READ))
    assert http.get("/nowhere").status_code == 401
    assert client.status("GET", "/nowhere") == 404


def test_while_the_database_is_away_a_request_gets_503_and_not_a_refusal(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    client = TokenClient(http, create_token(sqlite_engine, "t", Scope.READ))
    with sqlite_engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE tokens RENAME TO gone"))
    assert client.status("GET", "/runs") == 503


OF_A_RUN: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "costs", None),
    ("GET", "export?format=csv", None),
    ("GET", "notes", None),
    ("POST", "notes", {"text": "mine"}),
    ("DELETE", "notes/1", None),
    ("POST", "hold", {}),
]


def test_a_token_bound_to_a_project_sees_nothing_of_another(http: TestClient, sqlite_engine: sa.Engine) -> None:
    Trainer(http, "other", project="bert")
    bound = TokenClient(http, create_token(sqlite_engine, "gpt only", *Scope, project="gpt"))
    assert bound.status("GET", "/runs/r1") == 200
    for method, path, body in [
        ("GET", "/runs/other", None),
        *((method, f"/runs/other/{path}", body) for method, path, body in OF_A_RUN),
        ("POST", "/runs/other/reports", {"segment": 0}),
        ("DELETE", "/runs/other", None),
        ("PUT", "/orders/1", {"state": "applied"}),
        ("POST", "/interventions/1/approve", None),
    ]:
        assert bound.status(method, path, body) == 404, path
    assert bound.status("POST", "/runs", RUN | {"id": "new", "project": "bert"}) == 403
    assert bound.status("POST", "/runs", RUN | {"id": "other"}) == 409
    assert [run["id"] for run in http.get(f"{API}/runs", headers=bound.headers).json()] == ["r1"]
    assert http.get(f"{API}/runs?project=bert", headers=bound.headers).json() == []
    assert http.get("/metrics", headers=bound.headers).status_code == 403
    assert bound.status("GET", "/audit") == 403


def test_a_token_bound_to_a_run_sees_and_answers_that_run_alone(http: TestClient, sqlite_engine: sa.Engine) -> None:
    (order,) = train_until_nan(Trainer(http, "other"))["orders"]
    bound = TokenClient(http, create_token(sqlite_engine, "job", *Scope, run="r1"))
    assert bound.status("GET", "/runs/r1") == 200
    assert bound.status("POST", "/runs/r1/reports", {"segment": 0}) == 200
    answer = {"state": "failed", "key": order["key"]}
    for method, path, body in [
        ("GET", "/runs/other", None),
        *((method, f"/runs/other/{path}", body) for method, path, body in OF_A_RUN),
        ("POST", "/runs/other/reports", {"segment": 0}),
        ("POST", "/runs/other/lease", None),
        ("DELETE", "/runs/other/lease", None),
        ("PUT", f"/orders/{order['id']}", answer),
        ("POST", "/interventions/1/approve", None),
    ]:
        assert bound.status(method, path, body) == 404, path
    assert bound.status("POST", "/runs", RUN) == 200
    assert bound.status("POST", "/runs", RUN | {"id": "new"}) == 403
    assert [run["id"] for run in http.get(f"{API}/runs", headers=bound.headers).json()] == ["r1"]
    assert http.get("/metrics", headers=bound.headers).status_code == 403
    assert bound.status("GET", "/audit") == 403


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"host": "localhost:8000"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"origin": "http://localhost:8501"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, False),
        ({"host": ""}, False),
        ({"host": "[::1"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_a_collector_without_tokens_is_open_to_this_machine_and_to_no_page_of_another_site(
    http: TestClient, sqlite_engine: sa.Engine, headers: dict[str, str], allowed: bool
) -> None:
    asks = [("GET", "/runs"), ("POST", "/runs/r1/release"), ("POST", "/interventions/1/approve")]
    statuses = [http.request(method, f"{API}{path}", headers=headers).status_code for method, path in asks]
    assert statuses == ([200, 409, 404] if allowed else [403, 403, 403])
    assert http.get("/healthz", headers=headers).status_code == 200
    token = create_token(sqlite_engine, "t", Scope.READ)
    assert http.get(f"{API}/runs", headers=headers | {"authorization": f"Bearer {token}"}).status_code == 200


def test_a_revoked_token_is_refused_and_opens_nothing(http: TestClient, sqlite_engine: sa.Engine) -> None:
    client = TokenClient(http, create_token(sqlite_engine, "t", *Scope))
    assert client.status("GET", "/runs") == 200
    with writing(sqlite_engine) as session:
        assert access.revoke_token(session, name="t", now=NOW)
    assert client.status("GET", "/runs") == 401
    assert http.get(f"{API}/runs").status_code == 401  # the collector does not become an open one


def test_the_token_itself_is_not_in_the_store(sqlite_engine: sa.Engine) -> None:
    token = create_token(sqlite_engine, "t", Scope.READ)
    with reading(sqlite_engine) as session:
        (row,) = session.execute(sa.select(Token.__table__)).all()
    assert token not in str(row)
    assert len(token) > 40


def test_the_token_of_the_environment_has_every_scope(sqlite_engine: sa.Engine) -> None:
    http = collector(sqlite_engine, token="secret-of-16-chr")
    owner = TokenClient(http, "secret-of-16-chr")
    assert owner.status("POST", "/runs", RUN) == 201
    assert owner.status("PUT", "/runs/r1/policy", {"mode": "observe"}) == 200
    assert http.get(f"{API}/runs", headers={"authorization": "Basic secret-of-16-chr"}).status_code == 401


def test_failed_attempts_are_logged_without_the_token_and_then_nothing_new_is_looked_at(
    http: TestClient, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    used, unused = (TokenClient(http, create_token(sqlite_engine, name, Scope.READ)) for name in ("used", "unused"))
    wrong, app = TokenClient(http, "lg_guess"), http.app
    now = [1000.0]
    app.state.collector.failed_attempts = FailedAttempts(lambda: now[0], delay=0)  # type: ignore[attr-defined]
    assert used.status("GET", "/runs") == 200
    with caplog.at_level(logging.WARNING):
        statuses = [wrong.status("GET", "/runs") for _ in range(MAX_FAILED_ATTEMPTS + 3)]
    assert statuses == [401] * MAX_FAILED_ATTEMPTS + [429] * 3
    assert len(caplog.records) == MAX_FAILED_ATTEMPTS
    assert "wrong token from testclient for GET /api/v1/runs" in caplog.text
    assert "lg_guess" not in caplog.text
    assert used.status("GET", "/runs") == 200, "the trainers of an address go on"
    assert unused.status("GET", "/runs") == 429, "a guess that is right is not known to be"
    now[0] += 60.0
    assert unused.status("GET", "/runs") == 200


def test_failed_attempts_are_forgotten_after_a_while() -> None:
    now = [0.0]
    attempts = FailedAttempts(lambda: now[0], delay=0)
    for _ in range(MAX_FAILED_ATTEMPTS):
        assert not attempts.is_held("a", "guess")
        attempts.fail("a")
    assert attempts.is_held("a", "guess")
    assert not attempts.is_held("b", "guess")
    now[0] = 61.0
    attempts.fail("a")
    assert not attempts.is_held("a", "guess")


def test_failed_attempts_that_come_at_once_wait_one_after_the_other() -> None:
    now = [0.0]
    attempts = FailedAttempts(lambda: now[0], delay=0.25)
    assert [attempts.fail("a") for _ in range(3)] == [0.25, 0.5, 0.75]
    assert attempts.fail("b") == 0.25
    now[0] = 0.5
    assert attempts.fail("a") == 0.5


def test_decisions_of_operators_stay_in_the_audit_trail_after_the_run_is_deleted(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    ada = TokenClient(http, create_token(sqlite_engine, "ada", *Scope))
    http.put(f"{API}/runs/r1/policy", json={"mode": "observe"}, headers=ada.headers)
    assert ada.status("POST", "/runs/r1/release") == 409  # not possible: not recorded
    assert ada.status("DELETE", "/runs/r1") == 204
    lines = http.get(f"{API}/audit?run=r1", headers=ada.headers).json()
    assert [(line["who"], line["action"], line["at"]) for line in lines] == [
        ("ada", "delete", NOW),
        ("ada", "policy", NOW),
    ]
    assert lines[1]["details"]["mode"] == "observe"
