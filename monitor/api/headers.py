"""Headers that every answer carries: nothing of the API is to be framed, sniffed, kept or passed on."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
PAGE = (
    "default-src 'self'; img-src * data:; "
    "script-src 'unsafe-inline' cdn.jsdelivr.net; style-src 'unsafe-inline' cdn.jsdelivr.net"
)
"""What the page of the API's description needs."""


class Headers:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
                if scope["path"] == "/docs":
                    headers["content-security-policy"] = PAGE
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
