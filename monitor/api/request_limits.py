"""Limits the size of bodies and the amount of concurrent work, so that the collector's memory is bounded.

A body is read here, before the application sees the request: in time, within its size, and within the number of values
that it can make. Only a complete request takes a place among those that are served. A report beyond the limits is
answered with 429 and Retry-After: the SDK keeps it in its spool and sends it again. An export lasts as long as its
client reads, so exports have a limit of their own.
"""

import asyncio
import re
from collections.abc import Callable

import numpy as np
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.vocabulary.protocol import API, RUN_ID_PATTERN
from monitor import problems
from monitor.api.budgets import Budget, Client
from monitor.problems import Problem
from monitor.settings import Settings

UNLIMITED_PATHS = ("/healthz", "/metrics")
"""A busy collector is healthy, and must be able to say that it is busy."""
EXPORT_PATH = re.compile(f"{API}/runs/[^/]+/export")
RUN_PATH = re.compile(f"{API}/runs/({RUN_ID_PATTERN})/.*")
STRUCTURE = b'{[,:"'
"""Each of these bytes stands for at most about 50 bytes of memory in a parsed body, so that their number bounds it."""

MIN_ARRAY_BYTES = 16_384

Take = Callable[[int], None]


class RequestLimits:
    """ASGI middleware, behind the authentication."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self.requests = Budget(settings.max_requests_at_once)
        self.bytes = Budget(settings.max_bytes_at_once)
        self.values = Budget(settings.max_values_at_once)
        self.exports = Budget(settings.max_exports_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and EXPORT_PATH.fullmatch(scope["path"]):
            await self._export(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _export(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.exports.holding(Client.of(scope)) as take:
            try:
                take(1)
            except Problem as problem:
                await problems.response_to(Request(scope), problem)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client.of(scope)
        with (
            self.bytes.holding(client) as take_bytes,
            self.values.holding(client) as take_values,
            self.requests.holding(client, run_id=_written_run(scope)) as take_request,
        ):
            try:
                has_body = _has_body(scope)
                body = await self._body(scope, receive, take_bytes, take_values) if has_body else b""
                if body is None:  # the client has gone away
                    return
                take_request(1)
            except Problem as problem:
                await problems.response_to(Request(scope), problem)(scope, receive, send)
                return
            await self._app(scope, _replay(body, receive) if has_body else receive, send)

    async def _body(self, scope: Scope, receive: Receive, take_bytes: Take, take_values: Take) -> bytes | None:
        """The whole body; None if the client went away. Raises Problem 408, 413 or 429."""
        settings, announced = self._settings, _content_length(scope)
        if announced > settings.max_report_bytes:
            raise problems.too_large(settings.max_report_bytes)
        take_bytes(announced)
        parts, size, num_values, is_complete = [], 0, 0, False
        start = asyncio.get_running_loop().time()
        while not is_complete:
            message = await self._receive_in_time(receive, start, size)
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            is_complete = not message.get("more_body", False)
            parts.append(part)
            size += len(part)
            if size > settings.max_report_bytes:
                raise problems.too_large(settings.max_report_bytes)
            take_bytes(max(size - max(announced, size - len(part)), 0))  # beyond what was announced
            new_values = _num_values(part)
            num_values += new_values
            if num_values > settings.max_values:
                raise problems.too_many_values(settings.max_values)
            take_values(new_values)
        return b"".join(parts)

    async def _receive_in_time(self, receive: Receive, start: float, size: int) -> Message:
        """The next part of a body, of which `size` bytes have come since `start`. A client may neither fall silent nor
        send a byte now and then: what it holds is held from others."""
        settings, now = self._settings, asyncio.get_running_loop().time()
        latest = min(now, start + size / settings.min_body_rate) + settings.body_timeout
        try:
            async with asyncio.timeout_at(latest):
                return await receive()
        except TimeoutError:
            raise problems.too_slow(settings.body_timeout, settings.min_body_rate) from None


def _num_values(part: bytes) -> int:
    """The bytes of STRUCTURE. Of a large part they are counted as an array, in a third of the time."""
    if len(part) < MIN_ARRAY_BYTES:
        return len(part) - len(part.translate(None, STRUCTURE))
    numbers = np.frombuffer(part, dtype=np.uint8)
    return sum(int(np.count_nonzero(numbers == byte)) for byte in STRUCTURE)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the whole body first."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _written_run(scope: Scope) -> str | None:
    match = None if scope["method"] == "GET" else RUN_PATH.fullmatch(scope["path"])
    return None if match is None else match[1]


def _has_body(scope: Scope) -> bool:
    return _content_length(scope) > 0 or any(name == b"transfer-encoding" for name, _ in scope["headers"])


def _content_length(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
