"""What stands in front of the Streamlit app."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from dashboard.figures.component import PLOTLY_URL
from dashboard.server import PageHead


def test_a_page_that_a_browser_has_kept_names_the_plotly_of_today(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html><head></head></html>")
    app = Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path, html=True))], middleware=[Middleware(PageHead)])
    with TestClient(app, headers={"accept": "text/html"}) as http:
        first = http.get("/")
        kept = {"if-none-match": first.headers["etag"], "if-modified-since": first.headers["last-modified"]}
        again = http.get("/", headers=kept)
    assert (again.status_code, again.text) == (200, first.text)
    assert PLOTLY_URL in again.text
