"""What all requests have in common: headers, an id, and one line of the log without a secret in it."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from db.store.engine import writing
from lossguard.vocabulary.protocol import API, WIRE_HEADER, WIRE_VERSION
from monitor.telemetry import logs
from monitor.telemetry.logs import LogFormat, LogLevel
from tests.monitor.client import TestClient, Trainer, collector

PATHS = ("/healthz", f"{API}/runs", f"{API}/runs/nobody", "/nowhere", "/docs")


def test_every_answer_carries_the_security_headers_and_the_version_of_the_wire(http: TestClient) -> None:
    for path in PATHS:
        headers = http.get(path).headers
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'" if path == "/docs" else "default-src 'none'; frame-ancestors")
        assert headers[WIRE_HEADER] == WIRE_VERSION


def test_a_client_that_speaks_another_version_is_refused_in_one_sentence_and_stores_nothing(http: TestClient) -> None:
    run = {"id": "r1", "project": "p", "started_at": 0.0, "capabilities": []}
    answer = http.post(f"{API}/runs", json=run, headers={WIRE_HEADER: "2"})
    detail = "the client speaks version 2 of the wire, and this collector version 1: upgrade the older one"
    assert (answer.status_code, answer.json()["detail"], answer.headers[WIRE_HEADER]) == (426, detail, WIRE_VERSION)
    assert http.get(f"{API}/runs/r1").status_code == 404
    assert http.post(f"{API}/runs", json=run, headers={WIRE_HEADER: WIRE_VERSION}).status_code == 201


ROUTE = f"{API}/runs/{{run_id}}/reports"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as JSON; afterwards the root logger is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # `configure` closes those that it finds
    stream = io.StringIO()
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    monkeypatch.setattr(logging.getLogger("httpx2"), "disabled", True)  # the client's own log, which logs the query
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO, logger: str = "monitor.requests") -> list[dict[str, Any]]:
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in records if line["logger"] == logger]


def test_a_request_is_one_line_with_route_run_status_and_time(http: TestClient, written: io.StringIO) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [1.0]})
    *_, line = lines(written)
    assert len(lines(written)) == 3
    assert (line["message"], line["route"], line["run"], line["status"]) == ("POST", ROUTE, "r1", 200)
    assert 0 < line["ms"] < 60_000
    assert line["level"] == "info"


def test_the_id_of_a_request_is_answered_and_a_well_formed_one_of_the_client_is_kept(
    http: TestClient, written: io.StringIO
) -> None:
    given = ["made-by.the:client_1", "", "x" * 65, "a b", 'a"b', "caf\xe9"]
    answered = [http.get("/healthz", headers=[(b"x-request-id", one.encode("latin-1"))]) for one in given]
    ids = [answer.headers["x-request-id"] for answer in answered]
    assert ids[0] == given[0]
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids[1:])
    assert len(set(ids)) == len(ids)
    assert [line["request"] for line in lines(written)] == ids


def test_what_is_refused_before_any_route_is_logged_too(http: TestClient, written: io.StringIO) -> None:
    http.post(f"{API}/runs", content=b"x" * (16 * 2**20 + 1))
    http.get("/nowhere?token=secret")
    assert [(line["route"], line["status"]) for line in lines(written)] == [(f"{API}/runs", 413), ("/nowhere", 404)]
    assert "secret" not in written.getvalue()


def test_lines_within_a_request_carry_its_id(sqlite_engine: sa.Engine, written: io.StringIO) -> None:
    http = collector(sqlite_engine, token="a-good-one-of-20-chr")
    answer = http.get(f"{API}/runs", headers={"authorization": "Bearer bad-one", "x-request-id": "r-7"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (401, "r-7")
    (refused,) = lines(written, "monitor.api.auth")
    assert (refused["level"], refused["request"]) == ("warning", "r-7")
    assert "bad-one" not in written.getvalue()
    assert "good-one" not in written.getvalue()


def test_an_internal_error_is_a_problem_with_an_id_and_one_line_with_its_cause(
    sqlite_engine: sa.Engine, written: io.StringIO
) -> None:
    def no_clock() -> float:
        raise ZeroDivisionError

    http = TestClient(collector(sqlite_engine, clock=no_clock).app, raise_server_exceptions=False)
    answer = http.post(f"{API}/runs", json={"id": "r1", "project": "p", "started_at": 1.0})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert (answer.json()["title"], answer.headers["x-frame-options"]) == ("the collector failed", "DENY")
    failed, request = lines(written)
    assert failed["request"] == request["request"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in failed["exception"]
    assert request["status"] == 500


def test_errors_of_the_database_do_not_contain_values(sqlite_engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.SQLAlchemyError) as caught, writing(sqlite_engine) as session:
        session.execute(sa.text("INSERT INTO nothing VALUES (:value)"), {"value": "a secret of the run"})
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('a "b"', '"a \\"b\\""'),
        ("a=b", '"a=b"'),
        ("a\nb", '"a\\nb"'),
        ("/\x1b[31m\x07", '"/\\u001b[31m\\u0007"'),
        ("a\x7f\x9bb", '"a\\u007f\\u009bb"'),
    ],
)
def test_logfmt_quotes_what_would_break_a_line(given: str, wanted: str) -> None:
    record = logging.makeLogRecord({"msg": given, "levelname": "INFO", "name": "x"})
    assert logs.LineFormatter(LogFormat.TEXT).format(record).endswith(f"level=info logger=x message={wanted}")
