"""The collector's memory is bounded: what it cannot take now is sent again later, and nothing is half stored."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from lossguard.protocol import API
from monitor.api.request_limits import RequestLimits
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import TestClient, Trainer


class Slow:
    """An application that reads its body and answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.go.wait()
        await PlainTextResponse("done")(scope, receive, send)


async def ask(
    app: RequestLimits, *bodies: bytes, announced: bool = True, path: str = "/x", method: str = "POST"
) -> tuple[int, dict[str, str]]:
    """(status, headers) of a request whose body comes in these parts."""
    length = [(b"content-length", str(sum(map(len, bodies))).encode())] if announced else []
    scope = {"type": "http", "method": method, "path": path, "headers": length, "query_string": b""}
    left = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    messages: Iterator[Message] = iter([*left, {"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


def full(**limits: Any) -> tuple[int, str, int]:
    """(status of a second request while the first is served, its Retry-After, status of one afterwards)."""

    async def play() -> tuple[int, str, int]:
        slow = Slow()
        app = RequestLimits(slow, Settings(**limits))
        first = asyncio.create_task(ask(app, b"x" * 1000))
        await asyncio.sleep(0)
        status, headers = await asyncio.wait_for(ask(app, b"x" * 1000), 5)
        slow.go.set()
        assert (await first)[0] == 200
        assert (app.num_requests, app.num_bytes) == (0, 0)
        return status, headers["retry-after"], (await ask(app, b"x"))[0]

    return asyncio.run(play())


@pytest.mark.parametrize("limits", [{"max_requests_at_once": 1}, {"max_bytes_at_once": 1500}])
def test_while_full_the_answer_is_429_and_later_requests_are_admitted(limits: dict[str, int]) -> None:
    assert full(**limits) == (429, "1", 200)


def test_endless_downloads_do_not_delay_reports() -> None:
    async def play() -> list[int]:
        slow = Slow()
        app = RequestLimits(slow, Settings(max_requests_at_once=2, max_exports_at_once=2))
        export: dict[str, Any] = {"path": f"{API}/runs/r1/export", "method": "GET"}
        downloads = [asyncio.create_task(ask(app, **export)) for _ in range(2)]
        await asyncio.sleep(0)
        further = (await asyncio.wait_for(ask(app, **export), 5))[0]
        report = asyncio.create_task(ask(app, b"x", path=f"{API}/runs/r1/reports"))
        await asyncio.sleep(0)
        assert (app.num_exports, app.num_requests) == (2, 1)
        slow.go.set()
        served = [(await one)[0] for one in (*downloads, report)]
        assert (app.num_exports, app.num_requests) == (0, 0)
        return [further, *served]

    assert asyncio.run(play()) == [429, 200, 200, 200]


def test_one_large_request_alone_is_admitted_and_health_always(sqlite_engine: sa.Engine) -> None:
    async def play() -> list[int]:
        slow = Slow()
        slow.go.set()
        app = RequestLimits(slow, Settings(max_bytes_at_once=1024))
        alone = (await ask(app, b"x" * 5000))[0]
        app.num_requests = 10**6
        return [alone, (await ask(app, path="/healthz"))[0]]

    assert asyncio.run(play()) == [200, 200]


def test_a_body_that_does_not_announce_its_length_is_measured(sqlite_engine: sa.Engine) -> None:
    http = TestClient(create_app(Settings(max_report_bytes=2048), engine=sqlite_engine))
    answer = http.post(f"{API}/runs", content=iter([b"x" * 1500, b"x" * 1500]))
    assert answer.status_code == 413
    assert "LOSSGUARD_MAX_REPORT_BYTES" in answer.json()["detail"]


def test_a_report_with_too_many_metrics_is_refused_whole(sqlite_engine: sa.Engine) -> None:
    http = TestClient(create_app(Settings(max_metrics=3), engine=sqlite_engine))
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [1.0], "a": [1.0]})  # with the perplexity there are three
    body = {"segment": 0, "steps": [1], "times": [1.0], "metrics": {"loss": [1.0], "b": [2.0]}}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert (answer.status_code, answer.json()["where"]) == (422, ["metrics"])
    assert "LOSSGUARD_MAX_METRICS" in answer.json()["detail"]
    assert trainer.get()["newest_step"]["step"] == 0


def test_a_client_that_falls_silent_in_its_body_gets_408_and_makes_room(sqlite_engine: sa.Engine) -> None:
    sent: list[Message] = []

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def play() -> None:
        app = create_app(Settings(), engine=sqlite_engine, body_timeout=0.05)
        scope = {"type": "http", "method": "POST", "path": f"{API}/runs", "query_string": b""}
        scope |= {"headers": [(b"content-length", b"10"), (b"content-type", b"application/json")]}
        await asyncio.wait_for(app(scope, silent, send), 5)

    asyncio.run(play())
    assert sent[0]["status"] == 408
    assert b"send it again" in sent[1]["body"]
