"""The tools of a chart in the system's Chromium, and what a viewer did to it when messages come late."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from db import migrate
from db.engine import create_engine
from lossguard.states import RunState
from tests.dashboard.browser import FIGURE, chromium, dashboard, drawn
from tests.dashboard.seed import seed
from tests.dashboard.serving import Served

pytestmark = [pytest.mark.slow(5), pytest.mark.needs("chromium")]

Forward = Callable[[bytes], None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        yield context.new_page()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('store')}/lossguard.db")
    migrate.upgrade(engine)
    seed(engine, run_id="done-1", state=RunState.FINISHED, now=time.time())
    with dashboard(str(engine.url)) as running:
        yield running
    engine.dispose()


def in_figure(page: Page) -> list[float]:
    """First and last step of the live line of the figure, whatever range of it is in view."""
    data = f"document.querySelector('{FIGURE}')._fullData"
    ends: list[float] = page.evaluate(
        f"(trace => [trace.x.at(0), trace.x.at(-1)])({data}.find(trace => trace.name === 'live line'))"
    )
    return ends


def zooms(message: str | bytes) -> bool:
    """Whether a message of the page reports a zoom."""
    parsed = BackMsg.FromString(message) if isinstance(message, bytes) else BackMsg()
    return any('"turn"' in state.json_value for state in parsed.rerun_script.widget_states.widgets)


def press_plus(page: Page) -> None:
    page.locator(FIGURE).first.focus()
    page.keyboard.press("+")


def test_a_refresh_with_the_url_from_before_a_zoom_does_not_bring_the_whole_run_back(
    page: Page, served: Served
) -> None:
    late: list[bytes] = []

    def forward(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(message: str | bytes) -> None:
            server.send(message)
            if isinstance(message, bytes) and zooms(message):
                late.append(message)

        def to_page(message: str | bytes) -> None:
            if late:  # the server is at work: what comes now is answered by itself, and after the zoom
                server.send(late.pop())
            route.send(message)

        route.on_message(to_server)
        server.on_message(to_page)

    page.route_web_socket("**/_stcore/stream", forward)
    page.goto(f"{served.url}/run?run=done-1")
    whole = drawn(page)
    press_plus(page)
    drawn(page, other_than=whole)
    page.wait_for_timeout(1000)
    first, last = in_figure(page)
    assert 150 < first < last < 650
    assert "steps=" in page.url


def test_the_chart_asks_again_where_the_answer_is_for_an_earlier_view(page: Page, served: Served) -> None:
    last: list[bytes] = []
    lost: list[bytes] = []

    def forward(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(message: str | bytes) -> None:
            if isinstance(message, bytes) and zooms(message) and not lost:
                lost.append(message)
                message = last[-1]  # the server does not hear of the zoom, and answers as before
            elif isinstance(message, bytes):
                last.append(message)
            server.send(message)

        route.on_message(to_server)

    page.route_web_socket("**/_stcore/stream", forward)
    page.goto(f"{served.url}/run?run=done-1")
    whole = drawn(page)
    press_plus(page)
    drawn(page, other_than=whole)
    assert lost
    assert in_figure(page)[0] > 150
