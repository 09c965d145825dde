"""The headers that every response has, whoever sends it."""

from lossguard.vocabulary.protocol import API, WIRE_HEADER, WIRE_VERSION
from tests.monitor.client import TestClient

PATHS = ("/healthz", f"{API}/runs", f"{API}/runs/nobody", "/nowhere", "/docs")


def test_every_answer_carries_the_security_headers(http: TestClient) -> None:
    for path in PATHS:
        headers = http.get(path).headers
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == "no-store"
        assert "default-src" in headers["content-security-policy"]


def test_every_answer_names_the_version_of_the_wire(http: TestClient) -> None:
    for path in PATHS:
        assert http.get(path).headers[WIRE_HEADER] == WIRE_VERSION


def test_a_client_that_speaks_another_version_is_refused_in_one_sentence_and_stores_nothing(http: TestClient) -> None:
    run = {"id": "r1", "project": "p", "started_at": 0.0, "capabilities": []}
    answer = http.post(f"{API}/runs", json=run, headers={WIRE_HEADER: "2"})
    detail = "the client speaks version 2 of the wire, and this collector version 1: upgrade the older one"
    assert (answer.status_code, answer.json()["detail"], answer.headers[WIRE_HEADER]) == (426, detail, WIRE_VERSION)
    assert http.get(f"{API}/runs/r1").status_code == 404
    assert http.post(f"{API}/runs", json=run, headers={WIRE_HEADER: WIRE_VERSION}).status_code == 201
