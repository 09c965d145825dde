"""Requests for a foreign host, or from a page of another site, get no further than the first middleware."""

import asyncio

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from dashboard.allowed_hosts import AllowedHosts, BadHostName, is_allowed, parse_names

NAMES = parse_names("Lossguard.example.org, dash")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8501", None),
        ("127.0.0.1:8501", "http://127.0.0.1:8501"),
        ("[::1]:8501", "http://[::1]:8501"),
        ("10.0.0.5:8501", "http://10.0.0.5:8501"),
        ("LOSSGUARD.example.org", "https://lossguard.example.org"),
        ("lossguard.example.org.", None),
        ("dash:80", None),
    ],
)
def test_its_own_names_and_its_own_pages_are_answered(host: str, origin: str | None) -> None:
    assert is_allowed(headers(("host", host), *([] if origin is None else [("origin", origin)])), NAMES)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:8501", "http://evil.example:8501"),  # after DNS rebinding
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example", None),
        ("evil.example:localhost", None),
        ("[::1", None),
        ("", None),
        ("localhost:8501", "http://evil.example"),
        ("localhost:8501", "http://localhost:3000"),  # another program's page on this machine
        ("127.0.0.1:8501", "http://localhost:8501"),
        ("127.0.0.1:8501", "http://10.0.0.66"),
        ("localhost:8501", "null"),  # a sandboxed frame, or a file
        ("localhost:8501", ""),
        ("localhost:8501", "http://[::1"),
    ],
)
def test_foreign_names_and_foreign_pages_are_refused(host: str, origin: str | None) -> None:
    assert not is_allowed(headers(("host", host), *([] if origin is None else [("origin", origin)])), NAMES)


def test_a_request_names_one_host_and_at_most_one_origin() -> None:
    local = ("host", "localhost:8501")
    assert not is_allowed(headers(), NAMES)
    assert not is_allowed(headers(local, ("host", "evil.example")), NAMES)
    assert not is_allowed(headers(local, *[("origin", "http://localhost:8501")] * 2), NAMES)


@pytest.mark.parametrize("setting", ["*", "https://dash.example", "dash.example:443", "a b", "-dash", "dash.example/"])
def test_a_setting_that_is_no_list_of_names_is_explained(setting: str) -> None:
    with pytest.raises(BadHostName, match=r"^LOSSGUARD_DASHBOARD_HOSTS: .* is not a host name; write names such as"):
        parse_names(f"dash, {setting}")


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_refused_request_gets_403_and_one_sentence(kind: str) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("it must not get here")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": kind, "headers": headers(("host", "evil.example")).raw}
    asyncio.run(AllowedHosts(app, NAMES)(scope, receive, send))
    assert sent[0]["status"] == 403
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    assert text.startswith("The dashboard answers only at localhost")
    assert text.count(".") == 1


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for name, value in pairs])
