"""What the client returns, and how a caller tells failures apart."""

import gzip
import io
import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossguard
from lossguard import Client, Conflict, NotFound, Rejected, Unauthorised, Unreachable
from lossguard.client import client as client_module
from lossguard.client.client import MAX_BODY, MAX_DEPTH, MAX_VALUES, TooLarge, parsed, read_body
from tests.lossguard.client.answers import HTML, JSON, PROBLEM, never_ending, serving


def refused(error: type[Exception], *answer: Any, match: str | None = None, method: str = "GET", **headers: Any) -> Any:
    """The exception of a request that gets this answer."""
    body: dict[str, Any] | None = None if method == "GET" else {}
    with serving(*answer, **headers) as server, Client(server.url, "lg_token") as client:  # noqa: SIM117
        with pytest.raises(error, match=match) as caught:
            client.request(method, "/runs", body)
    return caught.value


def test_a_list_is_read_with_the_token_from_below_the_base_path() -> None:
    with serving(body=b'[{"id": "r"}]') as server, Client(f"{server.url}/behind/", "secret") as client:
        assert client.get("/runs") == [{"id": "r"}]
    ((method, path, headers, body),) = server.requests
    assert (method, path, headers["authorization"], body) == ("GET", "/behind/api/v1/runs", "Bearer secret", b"")


def test_pages_are_read_one_after_another_by_the_link_to_the_next() -> None:
    with serving(body=b"[1]", link='<?limit=1&cursor=a%2Bb>; rel="next"') as server, Client(server.url) as client:
        pages = client.pages("/runs?limit=1")
        assert next(pages) == [1]
        server.headers["link"] = '<https://elsewhere.example/?cursor=c>; rel="next", <?limit=1>; rel="first"'
        assert list(pages) == [[1]]
    paths = [path for _, path, _, _ in server.requests]
    assert paths == ["/api/v1/runs?limit=1", "/api/v1/runs?limit=1&cursor=a%2Bb"]


def test_pages_of_one_object_are_refused_with_how_to_read_it() -> None:
    sentence = r"/runs/r is one object and no list, .* read it with get\('/runs/r'\)"
    with serving(body=b'{"id": "r"}') as server, Client(server.url) as client, pytest.raises(Rejected, match=sentence):
        list(client.pages("/runs/r"))


def test_a_body_is_sent_as_json_with_the_callers_headers() -> None:
    with serving(201, b'{"id": "r"}') as server, Client(server.url) as client:
        assert client.request("POST", "/runs", {"id": "r"}, headers={"Lossguard-Spool-Bytes": "7"}) == {"id": "r"}
    ((method, _, headers, body),) = server.requests
    assert (method, headers["content-type"], headers["lossguard-spool-bytes"]) == ("POST", JSON, "7")
    assert body == b'{"id":"r"}'
    assert "authorization" not in headers


def test_an_answer_without_content_is_none() -> None:
    with serving(204, b"") as server, Client(server.url) as client:
        assert client.request("DELETE", "/runs/r") is None


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (Unauthorised, (401, 403)),
        (NotFound, (404,)),
        (Conflict, (409,)),
        (Rejected, (413, 422)),
        (Unreachable, (408, 429, 302, 500, 503)),
    ],
)
def test_each_refusal_has_its_own_exception_with_status_and_detail(
    error: type[Exception], statuses: tuple[int, ...]
) -> None:
    problem = b'{"title": "Problem", "detail": "it is so", "where": ["steps", 1]}'
    for status in statuses:
        caught = refused(error, status, problem, PROBLEM)
        assert (type(caught), caught.status, caught.detail) == (error, status, "it is so")
        assert (f"{status} it is so (at steps.1)" in str(caught)) == (error is not Unreachable)


def test_a_refused_token_is_not_tried_again_at_once_and_a_busy_collector_after_its_retry_after() -> None:
    for status, header, seconds in ((401, "", 30.0), (503, "7", 7.0), (503, "tomorrow", 0.0)):
        assert refused(lossguard.CollectorError, status, b"{}", PROBLEM, retry_after=header).retry_after == seconds


def test_a_refused_connection_means_that_nothing_arrived() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match="no collector answers") as caught:
        client.request("POST", "/runs", {})
    assert (caught.value.status, caught.value.may_have_arrived) == (None, False)
    with pytest.raises(lossguard.ConfigurationError, match="is not the address of a collector"):
        Client("http://h:99999")


def test_a_connection_that_ends_without_an_answer_leaves_open_what_arrived() -> None:
    with (
        serving(content_length="99") as server,
        Client(server.url, timeout=0.2) as client,
        pytest.raises(Unreachable) as caught,
    ):
        client.request("POST", "/runs", {})
    assert caught.value.may_have_arrived


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        *[(200, b"<html>", HTML), (200, b"3", JSON), (200, b"[]", JSON), (405, b"", HTML)],
        (404, b"404 page not found", "text/plain"),
    ],
)
def test_a_server_that_is_no_collector_is_unreachable_rather_than_a_refusal(
    status: int, body: bytes, content_type: str
) -> None:
    """A dashboard's port in LOSSGUARD_URL, or a proxy without its collector: the steps must stay in the spool."""
    refused(Unreachable, status, body, content_type, match="not a Lossguard collector", method="POST")


def test_a_body_is_downloaded_into_a_file() -> None:
    with serving(body=b"PAR1" * 1000, content_type="application/octet-stream") as server, Client(server.url) as client:
        file = io.BytesIO()
        assert client.download("/runs/r/export", file) == 4000
        assert file.getvalue() == server.body
        server.status, server.body, server.headers["content-type"] = 404, b"", PROBLEM
        with pytest.raises(NotFound):
            client.download("/runs/r/export", file)


def test_ping_needs_no_token_and_no_json() -> None:
    with serving(body=b"ok") as server, Client(server.url) as client:
        client.ping()
        assert server.requests[0][1] == "/healthz"
        server.status = 503
        with pytest.raises(Unreachable):
            client.ping()


@pytest.mark.parametrize("status", [200, 422, 426])
def test_a_collector_that_speaks_another_version_is_asked_again_later(status: int) -> None:
    with serving(status, Lossguard_Wire="2") as server, Client(server.url) as client:
        sentence = "speaks version 2 of the wire, this release 1: upgrade the older"
        with pytest.raises(Unreachable, match=sentence):
            client.get("/runs")


# An answer is bounded before it becomes anything in memory.

DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize("status", [200, 404, 409, 500])
def test_a_compressed_answer_is_refused_before_it_is_unpacked(status: int) -> None:
    bomb = gzip.compress(b"[" + b" " * MAX_BODY + b"]")
    with serving(status, bomb, content_encoding="gzip") as server, Client(server.url) as client:
        asks: Any = client.get, lambda path: next(client.pages(path)), lambda path: client.download(path, io.BytesIO())
        for ask in asks:
            with pytest.raises(Unreachable, match="sends a compressed answer"):
                ask("/runs")


@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_answer_of_too_many_bytes_is_given_up(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BODY", 1 << 20)
    with serving(status, b"[" + b" " * (1 << 20) + b"]") as server, Client(server.url) as client:
        with pytest.raises(Unreachable, match="sends more than 1 MiB in one answer"):
            client.get("/runs")
        if status == 200:  # whoever reads a stream has room for it
            with client.stream("/runs") as stream:
                assert len(stream.read()) == (1 << 20) + 2


def test_nested_json_raises_no_recursion_error_and_many_values_take_no_memory() -> None:
    many = b"[" + b"0," * MAX_VALUES + b"0]"
    for body, sentence in ((DEEP, "more than 64 levels"), (many, "more than 2,000,000 values")):
        refused(Unreachable, 200, body, match=sentence)
    assert len(str(refused(Rejected, 422, b'{"detail": %b}' % DEEP, PROBLEM))) < 500


def test_init_goes_on_without_a_collector_that_answers_with_nested_json(tmp_path: Path) -> None:
    with serving(200, DEEP) as server:
        run = lossguard.init("gpt", run_id="r", url=server.url, directory=tmp_path)
        run.log(0, loss=1.0)
        run.finish(timeout=0.1)
    assert b'"loss"' in next(tmp_path.rglob("*.spool")).read_bytes()


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drip:
        def read1(self, size: int, *, decode_content: bool) -> bytes:
            return b" "

    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=count().__next__))  # a second each
    drip: Any = Drip()
    with pytest.raises(TimeoutError):
        read_body(drip, timeout=30.0)


@pytest.mark.timeout(120)
def test_an_answer_whose_head_never_ends_is_given_up() -> None:
    with (
        never_ending(b"HTTP/1.1 100 Continue\r\n\r\n") as url,
        Client(url, timeout=1.0) as client,
        pytest.raises(Unreachable, match="the connection was lost"),
    ):
        client.get("/runs")


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text('[]{}\\",a\n\u00e9', max_size=6),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text('[{"\\', max_size=2), each, max_size=3),
)


@given(VALUES, st.booleans())
def test_whatever_a_collector_answers_is_parsed_as_it_is(value: Any, is_ascii: bool) -> None:
    many = [value, *[[]] * MAX_DEPTH]  # so that the levels are counted
    assert parsed(json.dumps(many, ensure_ascii=is_ascii).encode()) == many


def test_levels_are_counted_exactly_and_in_linear_time() -> None:
    assert parsed(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for text in (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b'[{"a":' * 40 + b"1" + b"}]" * 40):
        with pytest.raises(TooLarge):
            parsed(text)
    with pytest.raises(ValueError, match="line 1"):
        parsed(b"[]" * MAX_DEPTH + b"[]" + b'"' + b'\\"' * 1_000_000)
