"""The Run page in the system's Chromium: it updates while the run grows and keeps what the viewer did."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect

from db import migrate, queries
from db.store.engine import create_engine, writing
from tests.dashboard.browser import DRAWN, FIGURE, box_of, chromium, dashboard, drawn, wait_for_refreshes
from tests.dashboard.seed import STEPS, report, seed
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow(5), pytest.mark.needs("chromium")]
DOUBLE_CLICK_MS = 600
"""Two clicks that are closer in time are a double click."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1440, "height": 900}, timezone_id="Asia/Kolkata") as context:
        yield context.new_page()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/lossguard.db")
    migrate.upgrade(engine)
    seed(engine, now=time.time())
    yield engine
    engine.dispose()


def grow(engine: sa.Engine, first: int) -> None:
    """Add ten steps to the run."""
    with writing(engine) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        report(session, run, queries.segments(session, run=run)[-1], range(first, first + 10), time.time())
        run.last_report_at = time.time()


def in_view(page: Page) -> list[float]:
    found: list[float] = page.evaluate(f"document.querySelector('{FIGURE}')._fullLayout.xaxis.range")
    return found


def last_step(page: Page) -> float:
    data = f"document.querySelector('{FIGURE}')._fullData"
    ends = page.evaluate(f"{data}.filter(trace => trace.name === 'live line').map(trace => trace.x.at(-1))")
    return max(map(float, ends))


def settled(page: Page) -> str:
    """The name of the figure once two refreshes have not changed it."""
    before = None
    while (now := page.evaluate(DRAWN)) != before:
        before = now
        wait_for_refreshes(page)
    name: str = now
    return name


def wait_for_routes(page: Page, held: list[Route], count: int, seconds: float = 60) -> None:
    """Wait until a handler has put `count` routes into `held`: handlers run only while Playwright waits."""
    deadline = time.monotonic() + seconds
    while len(held) < count:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_a_live_chart_grows_in_place_and_a_zoom_outlives_reports_a_reload_and_a_restart(
    page: Page, engine: sa.Engine
) -> None:
    port = free_port()
    with dashboard(str(engine.url), port) as served:
        page.goto(f"{served.url}/run?run=spiky-1")
        first = drawn(page)
        page.evaluate(f"document.querySelector('{FIGURE}').mine = window.mine = true")
        grow(engine, STEPS)
        second = drawn(page, other_than=first)
        assert last_step(page) == STEPS + 9
        page.locator(FIGURE).first.focus()
        page.keyboard.press("+")
        page.wait_for_url("**steps=*")
        drawn(page, other_than=second)
        third = settled(page)
        zoomed = in_view(page)
        assert 0 < zoomed[0] < zoomed[1] < STEPS
        grow(engine, STEPS + 10)
        expect(page.get_by_text(f"{STEPS + 20:,}").first).to_be_visible()
        assert page.evaluate(DRAWN) == third  # nothing new is in view
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        moved = in_view(page)
        assert moved[0] > zoomed[0]
        page.wait_for_url(f"**steps={int(moved[0])}-*")
        fourth = settled(page)
        grow(engine, STEPS + 20)
        drawn(page, other_than=fourth)
        assert in_view(page) == moved
        assert page.evaluate(f"document.querySelector('{FIGURE}').mine && window.mine")
        page.reload()
        drawn(page)
        assert in_view(page) == pytest.approx(moved, abs=1)
    expect(page.get_by_text("The dashboard has not answered since")).to_be_visible()
    with dashboard(str(engine.url), port):
        grow(engine, STEPS + 30)
        expect(page.get_by_text(f"{STEPS + 40:,}").first).to_be_visible()
        assert in_view(page) == pytest.approx(moved, abs=1)


def test_a_figure_that_arrives_after_a_newer_one_changes_neither_the_chart_nor_the_zoom(
    page: Page, engine: sa.Engine
) -> None:
    with dashboard(str(engine.url)) as served:
        page.goto(f"{served.url}/run?run=spiky-1")
        whole = drawn(page)
        held: list[Route] = []
        page.route("**/lossguard/figures/*", lambda route: held.append(route) if len(held) < 2 else route.continue_())
        page.locator(FIGURE).first.focus()
        for count in (1, 2):
            page.keyboard.press("+")
            wait_for_routes(page, held, count)
        for each in held:
            with page.expect_event("requestfinished", lambda request, held=each: request == held.request):
                each.continue_()
        drawn(page, other_than=whole)
        zoomed = in_view(page)
        grow(engine, STEPS)
        expect(page.get_by_text(f"{STEPS + 10:,}").first).to_be_visible()
        assert in_view(page) == zoomed
        assert zoomed[1] - zoomed[0] == pytest.approx(STEPS / 4, rel=0.1)


def test_keys_in_quick_succession_never_clear_the_chart(page: Page, engine: sa.Engine) -> None:
    with dashboard(str(engine.url)) as served:
        page.goto(f"{served.url}/run?run=spiky-1")
        drawn(page)
        page.evaluate("() => { Plotly.purge = (host) => { window.cleared = host.isConnected; } }")
        page.locator(FIGURE).first.focus()
        for pause in (0, 50, 150, 300, 600):
            page.keyboard.press("+")
            page.wait_for_timeout(pause)
            for _ in range(3):
                page.keyboard.press("ArrowRight")
        moved = in_view(page)
        settled(page)
        assert in_view(page) == moved
        assert page.evaluate("window.cleared") is None
        page.get_by_role("link", name="Runs").first.click()
        page.wait_for_function("() => window.cleared !== undefined")
        assert page.evaluate("window.cleared") is False  # the chart was no longer on the page


def test_a_page_connects_without_probing_for_the_server(page: Page, engine: sa.Engine) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    with dashboard(str(engine.url)) as served:
        page.goto(f"{served.url}/run?run=spiky-1")
        drawn(page)
    assert "/_stcore/health" in asked
    assert not [path for path in asked if path.startswith("/run/")]


def test_a_drag_zooms_a_double_click_shows_all_again_and_a_click_changes_nothing(page: Page, engine: sa.Engine) -> None:
    with dashboard(str(engine.url)) as served:
        page.goto(f"{served.url}/run?run=spiky-1")
        drawn(page)
        whole = in_view(page)
        box = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
        left, middle, right = (box["x"] + share * box["width"] for share in (0.4, 0.5, 0.6))
        y = box["y"] + box["height"] / 2
        page.mouse.move(left, y)
        page.mouse.down()
        page.mouse.move(middle, y, steps=4)
        page.mouse.move(right, y, steps=4)
        page.mouse.up()
        page.wait_for_url("**steps=*")
        first, last = in_view(page)
        assert last - first == pytest.approx(0.2 * (whole[1] - whole[0]), rel=0.05)
        page.wait_for_timeout(DOUBLE_CLICK_MS)

        def shows_all() -> bool:
            page.mouse.dblclick(middle, y)  # on a busy machine these may be two clicks, which change nothing
            page.wait_for_timeout(2 * DOUBLE_CLICK_MS)
            return "steps=" not in page.url

        wait_for(shows_all, seconds=60, what="the whole run after a double click")
        page.mouse.click(middle, y)
        wait_for_refreshes(page)
        assert "steps=" not in page.url
        assert in_view(page) == pytest.approx(whole)


def test_every_control_of_the_run_page_is_reached_with_the_tabulator_key(page: Page, engine: sa.Engine) -> None:
    with dashboard(str(engine.url)) as served:
        page.goto(f"{served.url}/run?run=spiky-1&x=Time")
        before = drawn(page)
        assert page.evaluate(f"document.querySelector('{FIGURE}')._fullLayout.xaxis.type") == "date"
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.closest('[class*=st-key-]')?.className.match(/st-key-(\\S+)/)[1]")
            )
            if "discarded" in reached:
                break
        page.keyboard.press("Space")
        drawn(page, other_than=before)
        assert {"curves", "x", "smooth", "discarded"} <= reached
        page.wait_for_url("**discarded=false*")
