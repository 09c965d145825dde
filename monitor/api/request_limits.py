"""Limits the size of bodies and the amount of concurrent work, so that the collector's memory is bounded.

A report beyond the limits is answered with 429 and Retry-After: the SDK keeps it in its spool and sends it again. One
request is always admitted. An export lasts as long as its client likes, so exports have a limit of their own.
"""

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.protocol import API
from monitor import problems
from monitor.settings import Settings

UNLIMITED_PATHS = ("/healthz", "/metrics")
"""A busy collector is healthy, and must be able to say that it is busy."""
EXPORT_PATH = re.compile(f"{API}/runs/[^/]+/export")
BODY_TIMEOUT_SECONDS = 60.0
"""For so long a client may send nothing in the middle of a body."""


class RequestLimits:
    """ASGI middleware; lives in the event loop's thread, so that its counts need no lock."""

    def __init__(self, app: ASGIApp, settings: Settings, *, body_timeout: float = BODY_TIMEOUT_SECONDS) -> None:
        self._app, self._settings, self._body_timeout = app, settings, body_timeout
        self.num_requests = 0
        self.num_exports = 0
        self.num_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "GET" and EXPORT_PATH.fullmatch(scope["path"]):
            await self._export(scope, receive, send)
            return
        length = _content_length(scope)
        if length > self._settings.max_report_bytes:
            await problems.too_large(self._settings.max_report_bytes)(scope, receive, send)
        elif self._is_full(length):
            await problems.busy()(scope, receive, send)
        else:
            await self._admit(length, scope, receive, send)

    async def _export(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.num_exports >= self._settings.max_exports_at_once:
            await problems.busy()(scope, receive, send)
            return
        self.num_exports += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.num_exports -= 1

    def _is_full(self, length: int) -> bool:
        settings = self._settings
        has_too_many = self.num_requests >= settings.max_requests_at_once
        return self.num_requests > 0 and (has_too_many or self.num_bytes + length > settings.max_bytes_at_once)

    async def _admit(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        reserved = length
        self.num_requests += 1
        self.num_bytes += length
        received, is_complete = 0, False

        async def receive_counted() -> Message:
            """Counts the bytes of a body without a Content-Length too, and stops waiting for a silent client."""
            nonlocal reserved, received, is_complete
            message = await (receive() if is_complete else self._receive_in_time(receive))
            is_complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._settings.max_report_bytes:
                raise HTTPException(413, problems.too_large_detail(self._settings.max_report_bytes))
            self.num_bytes += max(received - reserved, 0)
            reserved = max(reserved, received)
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self.num_requests -= 1
            self.num_bytes -= reserved

    async def _receive_in_time(self, receive: Receive) -> Message:
        """A network that falls silent in the middle of a request must not hold its place for ever."""
        try:
            async with asyncio.timeout(self._body_timeout):
                return await receive()
        except TimeoutError:
            detail = f"no part of the body arrived for {self._body_timeout:.0f} s; send it again"
            raise HTTPException(408, detail) from None


def _content_length(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
