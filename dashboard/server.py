"""The web server: the Streamlit app, and beside it what figure.py's component fetches.

Run it with `python -m dashboard` (or `streamlit run dashboard/server.py` with the repository root on PYTHONPATH).
"""

import gzip
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dashboard.figure import FIGURES_ROUTE, PLOTLY_JS, PLOTLY_ROUTE, shelf

FOR_GOOD = "max-age=31536000, immutable"


def create_app() -> st.App:
    script = Path(__file__).parent / "app.py"
    return st.App(script, routes=[Route(PLOTLY_ROUTE, _plotly), Route(FIGURES_ROUTE + "{name}", _figure)])


@cache
def _script() -> bytes:
    return gzip.compress(PLOTLY_JS.read_bytes(), mtime=0)


async def _plotly(_request: Request) -> Response:
    # The page asks for it with the version in the query, so it may be kept for good.
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"public, {FOR_GOOD}"}
    return Response(_script(), media_type="text/javascript", headers=headers)


async def _figure(request: Request) -> Response:
    packed = shelf.get(request.path_params["name"])
    if packed is None:
        return Response(status_code=404)
    headers = {"Content-Encoding": "gzip", "Cache-Control": f"private, {FOR_GOOD}"}  # the name changes with the content
    return Response(packed.content, media_type="application/json", headers=headers)


app = create_app()
