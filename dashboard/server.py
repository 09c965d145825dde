"""The web server: the Streamlit app, and beside it what figure.py's component fetches.

Run it with `python -m dashboard` (or `streamlit run dashboard/server.py` with the repository root on PYTHONPATH).
"""

import gzip
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.figures.component import FIGURES_ROUTE, PLOTLY_JS, PLOTLY_ROUTE, PLOTLY_URL, figure_cache
from dashboard.views.run import figure  # noqa: F401 - what charts are made with is loaded before the first viewer comes

PAGE_AS_IT_IS = (b"accept-encoding", b"if-none-match", b"if-modified-since")
"""Headers of a request that are kept from the app when it is asked for a page."""
FOR_GOOD = "max-age=31536000, immutable"


def create_app() -> st.App:
    script = Path(__file__).parent / "app.py"
    routes = [Route(PLOTLY_ROUTE, _plotly), Route(FIGURES_ROUTE + "{name}", _figure)]
    return st.App(script, routes=routes, middleware=[Middleware(PageHead)])


@cache
def _script() -> bytes:
    return gzip.compress(PLOTLY_JS.read_bytes(), mtime=0)


async def _plotly(_request: Request) -> Response:
    # The page asks for it with the version in the query, so it may be kept for good.
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"public, {FOR_GOOD}"}
    return Response(_script(), media_type="text/javascript", headers=headers)


async def _figure(request: Request) -> Response:
    packed = figure_cache.get(request.path_params["name"])
    if packed is None:
        return Response(status_code=404)
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"private, {FOR_GOOD}"}  # the name changes with the content
    return Response(packed.content, media_type="application/json", headers=headers)


class PageHead:
    """ASGI middleware: what a page's head says so that the first figure is drawn sooner.

    Where the server is: Streamlit's browser part would look below the page's own path first, and wait 0.1 s before it
    looks here. And plotly.js, which runs as soon as it is there: Streamlit's scripts, which are many, are on their way.
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

        async def gathered(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                await _send_whole(send, start, body.replace(b"</head>", self.TAGS, 1))

        # The page comes as it is written, not compressed: it is 6 kB. And it always comes: that the file is as it was
        # says nothing of what is put into it here.
        plain = [(name, value) for name, value in scope["headers"] if name not in PAGE_AS_IT_IS]
        await self._app({**scope, "headers": plain}, receive, gathered)


async def _send_whole(send: Send, start: Message, body: bytes) -> None:
    headers = MutableHeaders(scope=start)
    if start["status"] == 200:
        headers["content-length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body})


app = create_app()
