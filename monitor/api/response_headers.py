"""Headers of every response: the API must not be framed, sniffed, cached or named in a referrer, and names its wire."""

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lossguard.vocabulary.protocol import WIRE_HEADER, WIRE_VERSION
from monitor import problems

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    WIRE_HEADER.lower(): WIRE_VERSION,
}
WIRE, VERSION = WIRE_HEADER.lower().encode(), WIRE_VERSION.encode()
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
DOCS_POLICY = (
    "default-src 'self'; img-src * data:; "
    "script-src 'unsafe-inline' cdn.jsdelivr.net; style-src 'unsafe-inline' cdn.jsdelivr.net"
)
"""Content-Security-Policy of /docs, which loads Swagger UI from its CDN."""


class ResponseHeaders:
    """ASGI middleware: adds headers that a response does not set itself; refuses another version of the wire."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.setdefault("headers", [])}
                message["headers"] += [header for header in RAW_HEADERS if header[0] not in own]
                if scope["path"] == "/docs":
                    MutableHeaders(scope=message)["content-security-policy"] = DOCS_POLICY
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        version = next((value for name, value in scope["headers"] if name == WIRE), VERSION)
        answer = self._app if version == VERSION else problems.response_to(Request(scope), problems.other_wire(version))
        await answer(scope, receive, send_with_headers)
