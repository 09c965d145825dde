"""The web server: the Streamlit app, and plotly's script beside it for figure.py.

Run it with `python -m dashboard` (or `streamlit run dashboard/server.py` with the repository root on PYTHONPATH).
"""

from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from dashboard.figure import PLOTLY_JS, PLOTLY_ROUTE


def create_app() -> st.App:
    script = Path(__file__).parent / "app.py"
    return st.App(script, routes=[Route(PLOTLY_ROUTE, _plotly)])


async def _plotly(_request: Request) -> FileResponse:
    # The page asks for it with the version in the query, so it may be kept for good.
    return FileResponse(PLOTLY_JS, headers={"Cache-Control": "public, max-age=31536000, immutable"})


app = create_app()
