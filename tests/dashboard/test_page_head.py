"""The head of every page."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from dashboard.figures.component import PLOTLY_URL
from dashboard.page_head import ELEMENTS, STATIC, STREAMLIT_TITLE, PageHead, scripts_of_elements
from dashboard.security_headers import INLINE_SCRIPT


def test_a_page_in_the_browsers_cache_is_sent_again_with_the_current_plotly(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html><head></head></html>")
    app = Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path, html=True))], middleware=[Middleware(PageHead)])
    with TestClient(app, headers={"accept": "text/html"}) as http:
        first = http.get("/index.html")
        cached = {"if-none-match": first.headers["etag"], "if-modified-since": first.headers["last-modified"]}
        again = http.get("/index.html", headers=cached)
    assert (again.status_code, again.text) == (200, first.text)
    assert PLOTLY_URL in again.text


@pytest.mark.parametrize("page", ELEMENTS)
def test_the_script_of_each_element_is_one_of_the_installed_streamlit(page: str) -> None:
    scripts = scripts_of_elements(ELEMENTS[page])
    for element in ELEMENTS[page]:
        assert any(f"/static/js/{element}." in path for path in scripts), element
    assert all((STATIC / path.removeprefix("/")).is_file() for path in scripts)


def test_the_list_of_runs_waits_for_its_own_elements_and_not_for_the_charts() -> None:
    app = Starlette(routes=[Mount("/", StaticFiles(directory=STATIC, html=True))], middleware=[Middleware(PageHead)])
    with TestClient(app, headers={"accept": "text/html"}) as http:
        cards, table, run = (http.get(path).text for path in ("/", "/?layout=Table", "/index.html"))
    assert [f'<script async src="{PLOTLY_URL}">' in text for text in (cards, table, run)] == [False, False, True]
    assert [PLOTLY_URL in text for text in (cards, table, run)] == [True, True, True]
    assert ["/static/js/BidiComponent." in text for text in (cards, table, run)] == [False, True, True]
    assert ["/static/js/Metric." in text for text in (cards, table, run)] == [False, False, True]


def test_a_page_is_ours_from_its_first_byte_and_its_scripts_may_run() -> None:
    app = Starlette(routes=[Mount("/", StaticFiles(directory=STATIC, html=True))], middleware=[Middleware(PageHead)])
    with TestClient(app, headers={"accept": "text/html"}) as http:
        answer = http.get("/")
    assert STREAMLIT_TITLE in (STATIC / "index.html").read_bytes()
    assert "<title>Lossguard</title>" in answer.text
    assert STREAMLIT_TITLE not in answer.content
    scripts = INLINE_SCRIPT.findall(answer.content)
    assert b"The dashboard has not answered" in scripts[-1]
    assert answer.headers["content-security-policy"].count("'sha256-") == len(scripts)
