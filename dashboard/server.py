"""The web server: the Streamlit app, plotly.js, and the figures and CSV files of the chart component.

Run it with `python -m dashboard` (or `streamlit run dashboard/server.py` with the repository root on PYTHONPATH).
"""

import gzip
import os
from collections.abc import Awaitable, Callable
from itertools import chain, islice
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dashboard import login, streamlit_internals
from dashboard.allowed_hosts import HOSTS_VARIABLE, AllowedHosts, parse_names
from dashboard.data.store import StoreUnavailable
from dashboard.data.values_file import VALUES_ROUTE, values_files
from dashboard.figures.component import CHART_JS, CHART_ROUTE, FIGURES_ROUTE, PLOTLY_JS, PLOTLY_ROUTE, figure_cache
from dashboard.login import Login, LoginRequired
from dashboard.page_head import PageHead
from dashboard.security_headers import SecurityHeaders
from dashboard.upload_limits import UploadLimits
from dashboard.views.run import curves, incidents, parts, record  # noqa: F401 - no viewer need wait for them

IMMUTABLE = "max-age=31536000, immutable"


def create_app() -> st.App:
    script = Path(__file__).parent / "app.py"
    routes = [
        Route(PLOTLY_ROUTE, _script(PLOTLY_JS.read_bytes())),
        Route(CHART_ROUTE, _script(CHART_JS)),
        Route(FIGURES_ROUTE + "{name}", _serve_figure),
        Route(VALUES_ROUTE + "{name}", _serve_values),
    ]
    file = os.environ.get(login.LOGIN_VARIABLE)
    required = login.read(Path(file)) if file else None
    scripts = (PLOTLY_ROUTE, CHART_ROUTE)
    login_required = [Middleware(LoginRequired, login=required, open_paths=scripts)] if required else []
    middleware = [
        Middleware(SecurityHeaders),
        Middleware(AllowedHosts, names=host_names(required)),
        *login_required,
        Middleware(UploadLimits),
        Middleware(PageHead),
    ]
    return st.App(script, routes=routes, middleware=middleware)


def host_names(required: Login | None) -> frozenset[str]:
    """Return the names under which the dashboard answers: those of the setting, and the one a login returns to."""
    names = parse_names(os.environ.get(HOSTS_VARIABLE, ""))
    return names if required is None else names | {required.host}


def _script(content: bytes) -> Callable[[Request], Awaitable[Response]]:
    """Serve a script. Its URL holds a hash of the content in its query, so browsers may cache it forever."""
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"public, {IMMUTABLE}"}
    compressed = gzip.compress(content, mtime=0)

    async def serve(_request: Request) -> Response:
        return Response(compressed, media_type="text/javascript", headers=headers)

    return serve


async def _serve_figure(request: Request) -> Response:
    packed = figure_cache.get(request.path_params["name"])
    if packed is None:
        return Response(status_code=404)
    headers = {
        "Content-Encoding": "gzip",
        "Cache-Control": f"private, {IMMUTABLE}",
    }
    return Response(packed.content, media_type="application/json", headers=headers)


def _serve_values(request: Request) -> Response:
    file = values_files.get(request.path_params["name"])
    if file is None:
        return Response("The page that offered this file is gone: open it again.", 404, media_type="text/plain")
    chunks = file.chunks()
    try:
        head = [next(chunks), *islice(chunks, 1)]  # so that a store that cannot be read is no empty file
    except StoreUnavailable as error:
        return Response(str(error), 503, media_type="text/plain")
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
    return StreamingResponse(chain(head, chunks), media_type="text/csv", headers=headers)


streamlit_internals.keep_unsent_messages()
streamlit_internals.keep_written_urls()
app = create_app()
