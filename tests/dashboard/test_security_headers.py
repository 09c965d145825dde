"""No page may frame the dashboard, and its pages load only what the dashboard serves."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from dashboard.security_headers import content_policy
from tests.dashboard.seed import seed
from tests.dashboard.serving import dashboard

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload


def test_only_the_inline_scripts_that_the_page_was_served_with_run() -> None:
    script = b"window.x = 1"
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = content_policy(b"<script>%s</script><script src='/a.js'></script>" % script)
    assert f"script-src 'self' blob: 'sha256-{digest}';" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "unsafe-eval" not in policy
    assert "frame-ancestors 'none'" in policy


@contextmanager
def elsewhere(page: str) -> Iterator[str]:
    """Another site, which serves `page`; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def served(sqlite_engine: sa.Engine) -> Iterator[str]:
    seed(sqlite_engine, now=time.time())
    with dashboard(str(sqlite_engine.url)) as running:
        yield running.url


@pytest.mark.slow(6)
@pytest.mark.needs("chromium")
def test_every_page_works_in_a_browser_without_a_violation_of_the_policy(served: str) -> None:
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    from tests.dashboard.browser import chromium, drawn

    shown = {
        "": "Runs", "run?run=spiky-1": "figure", "compare?runs=spiky-1": "Compare", "incident?run=spiky-1": "figure",
        "next-token?run=spiky-1": "figure", "lab?run=spiky-1": "figure", "lab?source=A+CSV+file": "Detector lab",
        "trainer-lab": "figure", "scorecard": "Scorecard",
    }  # fmt: skip
    problems: list[str] = []
    with chromium() as browser:
        for path, expected in shown.items():
            page = browser.new_page(viewport={"width": 1440, "height": 2400})  # all of it is in view
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.goto(f"{served}/{path}")
            if expected == "figure":
                drawn(page)
            else:
                page.get_by_role("heading", name=expected).wait_for()
            if "CSV" in path:
                curve = "step,loss\n" + "".join(f"{step},2.{step % 7}\n" for step in range(300))
                file: FilePayload = {"name": "mine.csv", "mimeType": "text/csv", "buffer": curve.encode()}
                page.locator("input[type=file]").set_input_files(file)
                drawn(page)
            page.wait_for_timeout(1500)  # the lower part, tables and fonts come later
            page.close()
    assert problems == []


@pytest.mark.slow(6)
@pytest.mark.needs("chromium")
def test_a_page_elsewhere_can_neither_frame_the_dashboard_nor_use_its_files_or_its_websocket(served: str) -> None:
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    from tests.dashboard.browser import chromium

    attack = (
        f'<iframe src="{served}/incident?run=spiky-1"></iframe><script src="{served}/lossguard/plotly.min.js"></script>'
        f'<script>const socket = new WebSocket("{served.replace("http", "ws")}/_stcore/stream");'
        'socket.onopen = () => window.result = "open"; socket.onerror = () => window.result = "refused"</script>'
    )
    with elsewhere(attack) as url, chromium() as browser:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_function("window.result")
        assert page.evaluate("window.result") == "refused"
        assert page.evaluate("typeof window.Plotly") == "undefined"
        (frame,) = page.frames[1:]
        assert not frame.url.startswith(served), "the browser shows an error in place of the page"
        assert frame.get_by_role("button").count() == 0
