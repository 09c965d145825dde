"""The head of every page: title, icon, and scripts that are loaded early, so that the first figure is drawn sooner."""

import base64
import re
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.figures.component import CHART_URL, PLOTLY_URL
from dashboard.security_headers import content_policy

REMOVED_HEADERS = (b"accept-encoding", b"if-none-match", b"if-modified-since")
"""Removed from a page request, so that the app always answers with the whole, uncompressed page."""
HERE = Path(__file__).parent
STREAMLIT_TITLE = b"<title>Streamlit</title>"
STATIC = Path(st.__file__).parent / "static"
"""Streamlit's client."""
CONTROLS = ("PageLink", "ButtonGroup", "Multiselect", "Selectbox", "Checkbox", "Html")
ELEMENTS = {
    "run": (*CONTROLS, "Metric", "BidiComponent", "DownloadButton"),
    "cards": (*CONTROLS, "TextInput"),
    "table": (*CONTROLS, "TextInput", "BidiComponent"),
}
"""The elements of a run's page, and of the list of runs in both layouts. Streamlit's client asks for the script of each
when the page first shows one."""
LIST = "/"
"""Path of the list of runs: it has no figure."""
PLOTLY_DELAY_MS = 3000
"""Milliseconds after which the list loads plotly.js, for the page of a run that a viewer opens from there."""
IMPORT = re.compile(r"""(?:from|import)["'`]\./([\w.~-]+\.js)["'`]""")


@cache
def scripts_of_elements(elements: tuple[str, ...], static: Path = STATIC) -> tuple[str, ...]:
    """Paths of the scripts of these elements and of all that they import, below the server's root.

    A release of Streamlit may name its scripts otherwise: those are loaded when they are needed, as without this.
    """
    folder = static / "static/js"
    waiting = [path.name for name in elements for path in folder.glob(f"{name}.*.js")]
    found: list[str] = []
    while waiting:
        name = waiting.pop()
        if name not in found and (folder / name).is_file():
            found.append(name)
            waiting += IMPORT.findall((folder / name).read_text(encoding="utf-8"))
    return tuple(f"/static/js/{name}" for name in sorted(found))


class PageHead:
    """ASGI middleware that adds to the head of every page what Streamlit's own page lacks."""

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
                page = body.replace(STREAMLIT_TITLE, _title(), 1)
                page = page.replace(b"</head>", _tags(_page_of(scope)), 1)
                answered = MutableHeaders(scope=start)
                if start["status"] == 200:
                    answered["content-length"] = str(len(page))
                    answered["content-security-policy"] = content_policy(page)
                await send(start)
                await send({"type": "http.response.body", "body": page})

        # The page is 15 kB, so it needs no compression. "304 Not Modified" would be wrong: the file may be unchanged
        # while the tags that are added here have changed.
        headers = [(name, value) for name, value in scope["headers"] if name not in REMOVED_HEADERS]
        await self._app({**scope, "headers": headers}, receive, collect)


def _page_of(scope: Scope) -> str:
    """Return the page of one of ELEMENTS."""
    if scope["path"] != LIST:
        return "run"
    return "table" if b"layout=Table" in scope["query_string"] else "cards"


@cache
def _tags(page: str) -> bytes:
    """A script that names the server's URL: Streamlit's client would otherwise try the page's own path first and wait
    0.1 s before it tries the root. Then plotly.js, our script of the charts and those of the page's elements, which the
    browser loads while it still fetches Streamlit's own. At last what makes Back return to a page as it was, and what
    says that the dashboard does not answer, while it does not.
    """
    preloads = scripts_of_elements(ELEMENTS[page])
    if page == "run":
        plotly = f'<script async src="{PLOTLY_URL}"></script>'
        preloads = (CHART_URL, *preloads)
    else:  # the list loads it later: its first run would wait a tenth of a second for it
        later = f"document.head.append(Object.assign(document.createElement('script'), {{src: '{PLOTLY_URL}'}}))"
        plotly = f"<script>addEventListener('load', () => setTimeout(() => {{{later}}}, {PLOTLY_DELAY_MS}))</script>"
    scripts = "".join(f'<link rel="modulepreload" crossorigin href="{path}">' for path in preloads)
    tags = (
        "<script>window.__streamlit = {BACKEND_BASE_URL: location.origin}</script>"
        f"{plotly}{scripts}"
        f"<style>{(HERE / 'connection.css').read_text()}</style>"
        f"{_inline('history.js')}{_inline('connection.js')}</head>"
    )
    return tags.encode()


def _inline(name: str) -> str:
    return f"<script>(() => {{{(HERE / name).read_text()}}})()</script>"


@cache
def _title() -> bytes:
    icon = base64.b64encode((HERE / "icon.svg").read_bytes()).decode()
    return f'<title>Lossguard</title><link rel="icon" href="data:image/svg+xml;base64,{icon}" />'.encode()
