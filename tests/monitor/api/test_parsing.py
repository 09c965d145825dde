"""Bodies that are no JSON, or that are made to break a parser."""

import pytest

from lossguard.protocol import API
from tests.monitor.client import TestClient, Trainer


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_body_that_is_not_a_report_is_refused(http: TestClient, body: bytes) -> None:
    Trainer(http).open("a")
    answer = http.post(f"{API}/runs/r1/reports", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"config": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"]
)
def test_json_that_is_nested_to_break_a_parser_is_refused(http: TestClient, body: bytes) -> None:
    answer = http.post(f"{API}/runs", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["where"][0] == "body"
