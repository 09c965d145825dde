"""What the collector lets in: bodies up to a size, and only so much work at once, so that its memory is bounded.

A report that comes while it is full is answered with 429 and Retry-After: the SDK keeps it in its spool and sends it
again. One request is always let in. A download lasts as long as its client likes, so they have places of their own.
"""

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.protocol import API
from monitor import problems
from monitor.settings import Settings

ALWAYS = ("/healthz", "/metrics")
"""A collector that has much to do is up, and says so."""
EXPORT = re.compile(f"{API}/runs/[^/]+/export")
SILENCE = 60.0
"""Seconds for which a client may send nothing in the middle of a body."""


class Limits:
    """ASGI middleware; lives in the event loop's thread, so that its counts need no lock."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self.requests = 0
        self.exports = 0
        self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "GET" and EXPORT.fullmatch(scope["path"]):
            await self._export(scope, receive, send)
            return
        length = _announced(scope)
        if length > self._settings.max_report_bytes:
            await problems.too_large(self._settings.max_report_bytes)(scope, receive, send)
        elif self._full(length):
            await problems.busy()(scope, receive, send)
        else:
            await self._let_in(length, scope, receive, send)

    async def _export(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.exports >= self._settings.max_exports_at_once:
            await problems.busy()(scope, receive, send)
            return
        self.exports += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.exports -= 1

    def _full(self, length: int) -> bool:
        settings = self._settings
        too_many = self.requests >= settings.max_requests_at_once
        return self.requests > 0 and (too_many or self.bytes + length > settings.max_bytes_at_once)

    async def _let_in(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        held = length
        self.requests += 1
        self.bytes += length
        seen, complete = 0, False

        async def counted() -> Message:
            """What a body without an announced length really has counts too; and it must come at last."""
            nonlocal held, seen, complete
            message = await (receive() if complete else _in_time(receive))
            complete = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self._settings.max_report_bytes:
                raise HTTPException(413, problems.too_large_detail(self._settings.max_report_bytes))
            self.bytes += max(seen - held, 0)
            held = max(held, seen)
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self.requests -= 1
            self.bytes -= held


async def _in_time(receive: Receive) -> Message:
    """A network that has fallen silent in the middle of a request must not hold its place for ever."""
    try:
        async with asyncio.timeout(SILENCE):
            return await receive()
    except TimeoutError:
        raise HTTPException(408, f"nothing of the body came for {SILENCE:.0f} s; send it again") from None


def _announced(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
