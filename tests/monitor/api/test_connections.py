"""Connections that say nothing, too much or for too long do not keep others out."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from monitor.api import connections
from monitor.api.connections import LOG_SECONDS, Connection, Connections, protocol, raise_file_limit
from monitor.settings import Settings


class Loop:
    """A clock that tests turn, and the calls that are due on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self._due.append((self.now + delay, call, arguments))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, call, arguments = self._due.pop(0)
            call(*arguments)
        self.now = end


class Client:
    """A connection as `Connections` sees it."""

    def __init__(self, loop: Loop, *, unsent: int = 0) -> None:
        self.loop, self.transport, self._unsent = loop, self, unsent
        self.ended = ""

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def abort(self) -> None:
        self.ended = "aborted"

    def close(self) -> None:
        self.ended = "closed"


class Place:
    """Connections with a clock of their own."""

    def __init__(self, **settings: Any) -> None:
        self.loop = Loop()
        self.limits = Connections(Settings(**settings))

    def connect(self, address: str = "10.0.0.1", **options: Any) -> Any:
        """A connection, or None if it is refused."""
        client = Client(self.loop, **options)
        return client if self.limits.add(cast(Connection, client), address) else None


def test_a_connection_without_complete_headers_is_closed_in_time() -> None:
    place = Place(header_timeout=10)
    silent, serving = place.connect(), place.connect()
    place.loop.run(5)
    late = place.connect()
    place.limits.has_request(serving)
    place.loop.run(6)
    assert (silent.ended, serving.ended, late.ended) == ("aborted", "", "")
    place.loop.run(5)
    assert (serving.ended, late.ended, len(place.limits)) == ("", "aborted", 1)


def test_after_an_answer_the_time_begins_again() -> None:
    place = Place(header_timeout=10)
    client = place.connect()
    for _ in range(3):
        place.loop.run(9)
        place.limits.has_request(client)
        place.loop.run(100)
        place.limits.is_idle(client)
    assert not client.ended
    place.loop.run(11)
    assert client.ended == "aborted"


def test_an_answer_that_is_on_its_way_is_completed_and_one_that_nobody_reads_is_not() -> None:
    place = Place(header_timeout=10)
    slow, stalled = place.connect(unsent=1), place.connect(unsent=1)
    for client in (slow, stalled):
        place.limits.has_request(client)
    place.limits.is_idle(slow)
    place.limits.stalls(stalled)
    place.loop.run(11)
    assert (slow.ended, stalled.ended) == ("closed", "")
    place.loop.run(connections.ANSWER_TIMEOUT)
    assert stalled.ended == "aborted"


def test_a_client_that_reads_again_keeps_its_connection() -> None:
    place = Place()
    client = place.connect()
    place.limits.has_request(client)
    place.limits.stalls(client)
    place.loop.run(connections.ANSWER_TIMEOUT - 5)
    place.limits.flows(client)
    place.loop.run(1000)
    assert not client.ended


def test_the_connection_that_has_waited_longest_makes_room_but_never_one_with_a_request() -> None:
    place = Place(max_connections=3)
    serving, idle, silent = place.connect(), place.connect(), place.connect()
    for client in (serving, idle):
        place.limits.has_request(client)
    place.limits.is_idle(idle)
    assert place.connect() is not None
    assert (serving.ended, idle.ended, silent.ended) == ("", "", "aborted")
    newer = [place.connect() for _ in range(3)]
    assert all(newer)
    assert (serving.ended, idle.ended) == ("", "")  # one that has made a request stays longer than the new ones
    assert len(place.limits) == 3


def test_without_any_that_waits_a_new_connection_is_refused() -> None:
    place = Place(max_connections=2)
    for _ in range(2):
        place.limits.has_request(place.connect())
    assert place.connect() is None
    assert len(place.limits) == 2


def test_an_address_gets_its_share_of_the_connections_and_a_trusted_proxy_all() -> None:
    place = Place(max_connections_per_address=2, trusted_proxies="10.9.0.0/16, ::1")
    assert [place.connect("10.0.0.1") is not None for _ in range(3)] == [True, True, False]
    assert [place.connect("10.9.0.1") is not None for _ in range(3)] == [True, True, True]
    assert place.connect("10.0.0.2") is not None
    assert place.connect("") is not None  # no address is known


def test_a_closed_connection_leaves_nothing_behind() -> None:
    place = Place(max_connections_per_address=1)
    for _ in range(3):
        client = place.connect()
        place.limits.remove(client)
        place.limits.remove(client)
        place.limits.is_idle(client)  # its answer ends after it
    assert len(place.limits) == 0
    place.loop.run(100)
    assert not client.ended


def test_what_is_closed_is_counted_in_the_log_and_not_for_every_connection(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(max_connections=1, header_timeout=5)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            place.connect()
            place.loop.run(0.1)
        place.loop.run(2 * LOG_SECONDS)
    assert len(caplog.messages) <= 4
    assert caplog.messages[0].endswith("closed connections (99: made room for another); 1 are open")


@pytest.mark.parametrize(
    ("limits", "possible", "logged"),
    [((1024, 1024), 896, True), ((1024, 4096), 1000, False), ((100, 100), 50, True), ((1024, -1), 1000, False)],
)
def test_the_file_limit_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: tuple[int, int],
    possible: int,
    logged: bool,
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _which, values: set_to.append(values))
    assert raise_file_limit(1000) == possible
    assert set_to == ([] if logged else [(1128, limits[1])])
    assert ("ulimit -n" in caplog.text) is logged


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads no body."""
    await PlainTextResponse(scope["path"])(scope, receive, send)


@contextlib.asynccontextmanager
async def server(**settings: Any) -> AsyncIterator[tuple[int, Connections]]:
    """(port, limits) of a real server with `greet`."""
    limits = Connections(Settings(**settings))
    config = uvicorn.Config(greet, http=protocol(limits), ws="none", lifespan="off", log_config=None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(config)
        task = asyncio.create_task(running._serve([listener]))
        while not running.started:
            await asyncio.sleep(0.001)
        yield listener.getsockname()[1], limits
        running.should_exit = True
        await asyncio.wait_for(task, 60)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer_to(port: int, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    answer = bytearray()
    async with connected(port) as (reader, writer):
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.wait_for(reader.read(65_536), 60):
                answer += part
    return bytes(answer)


def with_server(play: Callable[[int, Connections], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with server(**settings) as (port, limits):
            await play(port, limits)

    asyncio.run(run())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.02)


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: ", GET + b"\r\n", GET + b"GET /b HTTP/1.1\r\n"]
)
def test_a_half_request_is_closed_by_a_real_server(begun: bytes) -> None:
    async def play(port: int, limits: Connections) -> None:
        answer = await answer_to(port, begun)
        assert answer.startswith(b"HTTP/1.1 200" if b"/a" in begun else b"")
        assert len(limits) == 0

    with_server(play, header_timeout=1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_rest_of_a_body_that_nobody_reads_may_not_come_for_ever() -> None:
    async def play(port: int, limits: Connections) -> None:
        async with connected(port) as (reader, writer):
            writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            with pytest.raises(ConnectionError):
                await _drip(writer)
        assert len(limits) == 0

    with_server(play, header_timeout=1.0)


@pytest.mark.parametrize(
    "headers", [b"a: " + b"b" * 70_000 + b"\r\n", b"a: b\r\n" * 1000, b"a" * 300_000, b"a: b\r\n" * 100_000]
)
def test_headers_without_an_end_are_refused(headers: bytes) -> None:
    async def play(port: int, limits: Connections) -> None:
        answer = await answer_to(port, b"GET / HTTP/1.1\r\n" + headers)
        assert answer.startswith(b"HTTP/1.1 400") or answer == b""  # reset while the client still sends
        assert len(limits) == 0

    with_server(play)


def test_a_long_body_is_not_taken_for_headers() -> None:
    async def play(port: int, limits: Connections) -> None:
        body = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
        answer = await answer_to(port, body + GET + body + LAST)
        assert answer.count(b"HTTP/1.1 200") == 4

    with_server(play)


async def _drip(writer: asyncio.StreamWriter) -> None:
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


def test_trailers_are_ignored() -> None:
    """They were kept as headers, as many as a client without a token liked to send."""

    async def play(port: int, limits: Connections) -> None:
        chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        answer = await answer_to(port, chunked + b"a: b\r\n" * 5000 + b"\r\n" + LAST)
        assert answer.count(b"HTTP/1.1 200") == 2

    with_server(play)


LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_requests_that_come_together_are_answered_in_order_up_to_a_number() -> None:
    async def play(port: int, limits: Connections) -> None:
        some = await answer_to(port, GET * 3 + LAST)
        assert some.count(b"HTTP/1.1 200") == 4
        assert some.endswith(b"/last")
        many = await answer_to(port, GET * 5000)
        assert many.count(b"HTTP/1.1 200") <= 5
        assert b"HTTP/1.1 400" in many

    with_server(play)
