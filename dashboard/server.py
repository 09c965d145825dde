"""The web server: the Streamlit app, plotly.js, and the figures that the chart component fetches.

Run it with `python -m dashboard` (or `streamlit run dashboard/server.py` with the repository root on PYTHONPATH).
"""

import gzip
import os
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.allowed_hosts import HOSTS_VARIABLE, AllowedHosts, parse_names
from dashboard.figures.component import FIGURES_ROUTE, PLOTLY_JS, PLOTLY_ROUTE, PLOTLY_URL, figure_cache
from dashboard.page_head import completed
from dashboard.security_headers import SecurityHeaders, content_policy
from dashboard.upload_limits import UploadLimits
from dashboard.views.run import figure  # noqa: F401 - imports the plotting libraries before the first viewer comes

REMOVED_HEADERS = (b"accept-encoding", b"if-none-match", b"if-modified-since")
"""Removed from a page request, so that the app always answers with the whole, uncompressed page."""
IMMUTABLE = "max-age=31536000, immutable"


def create_app() -> st.App:
    script = Path(__file__).parent / "app.py"
    routes = [Route(PLOTLY_ROUTE, _serve_plotly), Route(FIGURES_ROUTE + "{name}", _serve_figure)]
    names = parse_names(os.environ.get(HOSTS_VARIABLE, ""))
    middleware = [
        Middleware(SecurityHeaders),
        Middleware(AllowedHosts, names=names),
        Middleware(UploadLimits),
        Middleware(EarlyScripts),
    ]
    return st.App(script, routes=routes, middleware=middleware)


@cache
def _compressed_plotly() -> bytes:
    return gzip.compress(PLOTLY_JS.read_bytes(), mtime=0)


async def _serve_plotly(_request: Request) -> Response:
    # The URL holds a hash of the content in its query, so browsers may cache it forever.
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"public, {IMMUTABLE}"}
    return Response(_compressed_plotly(), media_type="text/javascript", headers=headers)


async def _serve_figure(request: Request) -> Response:
    packed = figure_cache.get(request.path_params["name"])
    if packed is None:
        return Response(status_code=404)
    headers = {
        "Content-Encoding": "gzip",
        "Cache-Control": f"private, {IMMUTABLE}",
    }
    return Response(packed.content, media_type="application/json", headers=headers)


class EarlyScripts:
    """ASGI middleware that adds two script tags to the head of every page, so that the first figure is drawn sooner.

    The first one names the server's URL: Streamlit's client would otherwise try the page's own path first and wait
    0.1 s before it tries the root. The second one loads plotly.js while the browser still fetches Streamlit's scripts.
    """

    TAGS = (
        "<script>window.__streamlit = {BACKEND_BASE_URL: location.origin}</script>"
        f'<script async src="{PLOTLY_URL}"></script></head>'
    ).encode()

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "GET" or b"text/html" not in dict(scope["headers"]).get(b"accept", b""):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                await _send_page(send, start, completed(body).replace(b"</head>", self.TAGS, 1))

        # The page is 6 kB, so it needs no compression. "304 Not Modified" would be wrong: the file may be unchanged
        # while the tags that are added here have changed.
        headers = [(name, value) for name, value in scope["headers"] if name not in REMOVED_HEADERS]
        await self._app({**scope, "headers": headers}, receive, collect)


async def _send_page(send: Send, start: Message, body: bytes) -> None:
    headers = MutableHeaders(scope=start)
    if start["status"] == 200:
        headers["content-length"] = str(len(body))
        headers["content-security-policy"] = content_policy(body)
    await send(start)
    await send({"type": "http.response.body", "body": body})


app = create_app()
