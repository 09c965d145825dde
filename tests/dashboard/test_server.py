"""The middleware in front of the Streamlit app."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from dashboard.figures.component import PLOTLY_URL
from dashboard.server import EarlyScripts


def test_a_page_in_the_browsers_cache_is_sent_again_with_the_current_plotly(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html><head></head></html>")
    app = Starlette(
        routes=[Mount("/", StaticFiles(directory=tmp_path, html=True))], middleware=[Middleware(EarlyScripts)]
    )
    with TestClient(app, headers={"accept": "text/html"}) as http:
        first = http.get("/")
        cached = {"if-none-match": first.headers["etag"], "if-modified-since": first.headers["last-modified"]}
        again = http.get("/", headers=cached)
    assert (again.status_code, again.text) == (200, first.text)
    assert PLOTLY_URL in again.text
