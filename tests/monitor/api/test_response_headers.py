"""The headers that every response has, whoever sends it."""

from lossguard.vocabulary.protocol import ACCEPTS_HEADER, API, NEGOTIATED_FIELDS
from tests.monitor.client import TestClient

PATHS = ("/healthz", f"{API}/runs", f"{API}/runs/nobody", "/nowhere", "/docs")


def test_every_answer_carries_the_security_headers(http: TestClient) -> None:
    for path in PATHS:
        headers = http.get(path).headers
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == "no-store"
        assert "default-src" in headers["content-security-policy"]


def test_every_answer_names_the_fields_that_earlier_collectors_refuse(http: TestClient) -> None:
    for path in PATHS:
        assert set(http.get(path).headers[ACCEPTS_HEADER].split()) == NEGOTIATED_FIELDS
