"""People at the dashboard, in the system's Chromium: each test follows one of them over pages, dialogs and files.

All share a browser, a store, its collector and a dashboard. What needs no browser is tested beside its module.
"""

import csv
import math
import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, FilePayload, Page, Route, ViewportSize, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from db import commands, migrate, queries
from db.records import access, step_notes
from db.store.engine import create_engine, reading, writing
from lossguard import Client
from lossguard.vocabulary.states import RunState
from tests.answering import answering
from tests.dashboard.browser import (
    DRAWN,
    FIGURE,
    SETTLED,
    WAIT_MS,
    box_of,
    chromium,
    click,
    click_on,
    drawn,
    open_dialog,
    wait_for_refreshes,
)
from tests.dashboard.hostile_runs import BY_ID
from tests.dashboard.live import report_a_spike
from tests.dashboard.login_provider import login_file, provider
from tests.dashboard.report.reader import hostile_run
from tests.dashboard.report.reader import page as report_of
from tests.dashboard.seed import STEPS, report, seed, stored, trail
from tests.dashboard.serving import dashboard, serving
from tests.db.seed import add_run, add_segment, add_steps
from tests.monitor.scorecard import store_run
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow(5), pytest.mark.needs("chromium")]

LAPTOP: ViewportSize = {"width": 1440, "height": 900}
DOUBLE_CLICK_MS = 600
"""Two clicks that are closer in time are a double click."""
PEAK = 7.0
"""The discarded spike of the seed is higher, all of its live line is lower."""
HOSTILE = (("run", "denormal"), ("run", "huge-and-negative"), ("run", "nothing-reported"), ("incident", "first-nan"),
           ("incident", "late-steps"), ("next-token", "probes"))  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('store')}/lossguard.db")
    migrate.upgrade(engine)
    for run_id in ("one", "two"):
        seed(engine, run_id=run_id, state=RunState.FINISHED, now=time.time())
    seed(engine, run_id="live", now=time.time())
    with writing(engine) as session:
        for number, last in enumerate((10.0, math.nan, 9.5, math.inf, None)):
            run = add_run(session, f"s{number}", project="sweep", name=f"<b>{number}", started_at=10.0 - number)
            run.state = RunState.FINISHED
            if last is not None:
                add_steps(session, run, add_segment(session, run, f"k{number}"), range(2), loss=[1.0, last])
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def collector(engine: sa.Engine) -> Iterator[str]:
    with serving(engine) as url:
        yield url


@pytest.fixture(scope="module")
def site(engine: sa.Engine, collector: str) -> Iterator[str]:
    with dashboard(str(engine.url), LOSSGUARD_URL=collector) as served:
        yield served.url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in India; what it writes to the console as a warning or an error fails the test."""
    with opened(browser, viewport=LAPTOP, timezone_id="Asia/Kolkata") as page:
        problems: list[str] = []
        page.on("console", lambda line: problems.append(line.text) if line.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        lost = "disconnected|Failed to load|Are you connected|WebSocket|ERR_CONNECTION|No response received"
        slow = "using link preload but not used"  # a font: the page had no text yet
        assert [text for text in problems if not re.search(f"{lost}|{slow}", text)] == []


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page in a context of its own, with these options."""
    with browser.new_context(**options) as context:
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()


def phone(browser: Browser) -> AbstractContextManager[Page]:
    return opened(browser, viewport={"width": 390, "height": 844})


def grow(engine: sa.Engine, first: int, run_id: str = "live") -> None:
    """Add ten steps to the run."""
    with writing(engine) as session:
        run = stored(session, run_id)
        report(session, queries.segments(session, run=run)[-1], range(first, first + 10), time.time())
        run.last_report_at = time.time()


def in_view(page: Page, axis: str = "xaxis") -> list[float]:
    found: list[float] = page.evaluate(f"document.querySelector('{FIGURE}')._fullLayout.{axis}.range")
    return found


def live_ends(page: Page) -> list[float]:
    """First and last step of the live line that the figure holds, whatever range of it is in view."""
    line = f"document.querySelector('{FIGURE}')._fullData.filter(trace => trace.name === 'live line').at(-1)"
    ends: list[float] = page.evaluate(f"(trace => [trace.x.at(0), trace.x.at(-1)])({line})")
    return [float(each) for each in ends]


def settled(page: Page) -> str:
    """The name of the figure once two refreshes have not changed it."""
    before = None
    while (now := page.evaluate(DRAWN)) != before:
        before = now
        wait_for_refreshes(page)
    name: str = now
    return name


def press(page: Page, *keys: str) -> None:
    page.locator(FIGURE).first.focus()
    for key in keys:
        page.keyboard.press(key)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Drag over the first panel, from and to shares of its width and height; returns the middle of the panel."""
    box = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
    (left, top), (right, bottom) = (
        (box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in (start, end)
    )
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, (top + bottom) / 2, steps=4)
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def confirm(page: Page, word: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("To confirm, type").fill(word.lower())
    click_on(dialog.get_by_role("button", name=word, exact=True))


def test_a_live_run_is_watched_and_a_zoom_outlives_reports_and_a_reload(
    page: Page, site: str, engine: sa.Engine
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.goto(f"{site}/run?run=live")
    first = drawn(page)
    assert not [path for path in asked if path.startswith("/run/")], "the page knows where its server is"
    page.evaluate(f"document.querySelector('{FIGURE}').mine = window.mine = true")
    box = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    values = page.locator(".hoverlayer .legendtext")
    expect(values.first).to_have_text(re.compile("^loss "))
    grow(engine, STEPS)
    second = drawn(page, other_than=first)
    expect(values.first).to_have_text(re.compile("^loss "))  # a refresh does not take it away
    expect(values.nth(1)).to_have_text(re.compile("^grad norm "))
    page.mouse.move(0, 0)
    assert live_ends(page)[1] == STEPS + 9
    press(page, "+")
    page.wait_for_url("**steps=*")
    drawn(page, other_than=second)
    third = settled(page)
    zoomed = in_view(page)
    assert 0 < zoomed[0] < zoomed[1] < STEPS
    grow(engine, STEPS + 10)
    expect(page.get_by_text(f"{STEPS + 20:,}").first).to_be_visible()
    assert page.evaluate(DRAWN) == third, "nothing new is in view"
    press(page, *["ArrowRight"] * 3)
    moved = in_view(page)
    page.wait_for_url(f"**steps={int(moved[0])}-*")
    fourth = settled(page)
    grow(engine, STEPS + 20)
    drawn(page, other_than=fourth)
    assert in_view(page) == moved
    assert page.evaluate(f"document.querySelector('{FIGURE}').mine && window.mine")
    page.reload()
    fifth = drawn(page)
    assert in_view(page) == pytest.approx(moved, abs=1)
    click(page, "Follow")
    page.wait_for_url("**last=*")
    sixth = drawn(page, other_than=fifth)
    width = moved[1] - moved[0]
    assert in_view(page) == pytest.approx([STEPS + 29 - width, STEPS + 29], abs=2)
    grow(engine, STEPS + 30)
    drawn(page, other_than=sixth)
    assert in_view(page)[1] == STEPS + 39
    pressed = page.locator(".lossguard-presets button[aria-pressed=true]")
    expect(pressed).to_have_text(["Follow"])
    click(page, "Last 10%")
    page.wait_for_url("**last=10%25*")
    expect(pressed).to_have_text(["Last 10%", "Follow"])
    wait_for(lambda: in_view(page) == [STEPS + 40 - 84, STEPS + 39], seconds=60, what="the last tenth")
    click(page, "All", exact=True)
    page.wait_for_url(lambda url: "last=" not in url)
    expect(pressed).to_have_text(["All"])


def test_the_page_names_a_collector_and_a_dashboard_that_do_not_answer_until_they_do_and_keeps_its_zoom(
    page: Page, sqlite_engine: sa.Engine
) -> None:
    seed(sqlite_engine, now=time.time())
    port, collector_port = free_port(), free_port()
    address = f"http://127.0.0.1:{collector_port}"
    banner = page.get_by_text(re.compile("The collector at .* has not answered since"))
    notice = page.get_by_text("The dashboard has not answered since")
    with (
        page.expect_console_message(lambda line: "Are you connected" in line.text, timeout=5 * WAIT_MS),
        dashboard(str(sqlite_engine.url), port, LOSSGUARD_URL=address) as served,
    ):
        page.goto(f"{served.url}/run?run=spiky-1&steps=300-500")
        drawn(page)
        expect(banner).to_be_visible()
        with serving(sqlite_engine, port=collector_port):
            expect(banner).to_have_count(0)
        expect(banner).to_be_visible()
    expect(notice).to_be_visible()
    expect(page.get_by_text("Connecting")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_have_count(0)  # Streamlit's own, which would have asked that
    with dashboard(str(sqlite_engine.url), port, LOSSGUARD_URL=address):
        expect(notice).to_have_count(0)
        grow(sqlite_engine, STEPS, "spiky-1")
        expect(page.get_by_text(f"{STEPS + 10:,}").first).to_be_visible()
        assert in_view(page) == [300, 500]


VIEW = f"""() => {{
    const host = document.querySelector('{FIGURE}'), shown = host._fullLayout;
    return {{
        titles: host.layout.annotations.map(note => note.text[0]).join(''),
        height: shown.height,
        hidden: [...new Set(host._fullData.filter(t => t.visible === 'legendonly').map(t => t.legendgroup))],
    }};
}}"""


def test_a_chart_is_zoomed_and_changed_and_its_link_shows_another_person_the_same(
    page: Page, site: str, browser: Browser
) -> None:
    page.goto(f"{site}/run?run=one")
    whole_figure = drawn(page)
    whole, loss = in_view(page), in_view(page, "yaxis")
    assert 1 < loss[0] < loss[1] < PEAK
    middle = drag(page, (0.4, 0.5), (0.6, 0.5))
    page.wait_for_url("**steps=*")
    drawn(page, other_than=whole_figure)
    first, last = in_view(page)
    assert last - first == pytest.approx(0.2 * (whole[1] - whole[0]), rel=0.05)
    assert in_view(page, "yaxis")[1] < loss[1] - 1, "the first steps, with their high losses, are out of view"

    def shows_all() -> bool:
        page.mouse.dblclick(*middle)  # on a busy machine these may be two clicks, which change nothing
        page.wait_for_timeout(2 * DOUBLE_CLICK_MS)
        return "steps=" not in page.url

    wait_for(shows_all, seconds=60, what="the whole run after a double click")
    page.mouse.click(*middle)
    page.wait_for_timeout(DOUBLE_CLICK_MS)
    assert "steps=" not in page.url
    wait_for(lambda: in_view(page) == pytest.approx(whole), seconds=60, what="the figure of the whole run")
    whole_figure = drawn(page)
    press(page, "+")
    page.wait_for_url("**steps=*")
    zoomed = drawn(page, other_than=whole_figure)
    first, last = in_view(page)
    click(page, "Chart")
    click_on(page.locator(".st-key-scale-loss").get_by_text("Log"))
    page.wait_for_url("**log=loss*")
    logarithmic = drawn(page, other_than=zoomed)
    click_on(page.locator(".st-key-fit-all-loss label"))
    page.wait_for_url("**fit-all=loss*")
    drawn(page, other_than=logarithmic)
    page.keyboard.press("Escape")
    before = page.evaluate(VIEW)
    click_on(page.get_by_text("Grad norm (L2, before clipping)"))
    page.wait_for_url("**collapsed=grad_norm*")
    closed = before["height"] - 130
    wait_for(lambda: page.evaluate(VIEW)["height"] == closed, seconds=60, what="the chart without the closed panel")
    page.locator(f"{FIGURE} .traces", has_text="live line").locator(".legendtoggle").first.click()
    page.wait_for_url("**hidden=live+line*")
    unzoomed = in_view(page, "yaxis")
    drag(page, (0.5, 0.2), (0.5, 0.8))
    page.wait_for_url("**y=loss*")
    page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }")
    page.locator('.modebar-btn[data-title="Copy a link to this view"]').first.click()
    page.wait_for_function("() => window.copied")
    seen, loss = page.evaluate(VIEW), in_view(page, "yaxis")
    assert (seen["hidden"], seen["titles"], loss != unzoomed) == (["live line"], "\u25be\u25b8\u25be\u25be\u25be", True)
    with opened(browser, viewport=LAPTOP) as other:
        other.goto(page.evaluate("window.copied"))
        drawn(other)
        wait_for(lambda: other.evaluate(VIEW) == seen, seconds=60, what="the same, with the panels below the window")
        assert in_view(other) == pytest.approx([first, last], abs=1)
        assert in_view(other, "yaxis") == pytest.approx(loss, rel=1e-4)
    page.go_back()
    page.wait_for_url(lambda url: "y=loss" not in url)
    wait_for(lambda: in_view(page, "yaxis") == unzoomed, seconds=60, what="the loss axis as it was before")


STRIP = ".lossguard-axis.shown"


@pytest.mark.system
def test_a_chart_becomes_a_picture_and_a_file_fills_the_screen_and_keeps_its_axis_in_sight(
    page: Page, site: str, tmp_path: Path
) -> None:
    page.goto(f"{site}/run?run=one&steps=100-200")
    drawn(page)

    def button(title: str) -> None:
        page.locator(f'.modebar-btn[data-title="{title}"]').first.click()

    shown = page.evaluate(VIEW)["height"]  # lower panels may be drawn meanwhile
    with page.expect_download() as picture:
        button("Download as PNG")
    picture.value.save_as(tmp_path / "chart.png")
    assert picture.value.suggested_filename.endswith("-one.png")
    header = (tmp_path / "chart.png").read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert (header[:4], width) == (b"\x89PNG", 2 * page.evaluate(f"document.querySelector('{FIGURE}').clientWidth"))
    assert height > 2 * shown  # the title
    with page.expect_download() as values:
        button("Download what is in view as CSV")
    values.value.save_as(tmp_path / "values.csv")
    assert values.value.suggested_filename == "one-steps-100-200.csv"
    rows = list(csv.DictReader((tmp_path / "values.csv").read_text().splitlines()))
    assert [row["first_step"] for row in rows if row["metric"] == "loss"] == [str(step) for step in range(100, 201)]
    button("Full screen")
    page.wait_for_function("() => document.fullscreenElement?.className === 'lossguard-chart'")
    page.keyboard.press("Escape")
    page.goto(f"{site}/run?run=one")
    drawn(page)
    strip = page.locator(STRIP)
    box = box_of(strip)
    assert box["y"] + box["height"] == pytest.approx(LAPTOP["height"], abs=1)
    expect(strip.locator("span")).to_have_text(["0", "100", "200", "300", "400", "500", "600", "700"])
    text = strip.inner_text()  # before the zoom, which may be drawn at once
    press(page, "+")
    page.wait_for_function(f"before => document.querySelector('{STRIP}').innerText !== before", arg=text)
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 1000)")
    expect(strip).to_have_count(0)


@pytest.mark.system
def test_a_keyboard_reaches_every_control_and_quick_keys_never_clear_the_chart(page: Page, site: str) -> None:
    page.goto(f"{site}/run?run=one&x=Time")
    before = drawn(page)
    assert page.evaluate(f"document.querySelector('{FIGURE}')._fullLayout.xaxis.type") == "date"
    page.get_by_role("button", name="Chart").press("Enter")
    page.locator(".st-key-curves").wait_for()
    reached: set[str] = set()
    control = "document.activeElement.closest('[class*=st-key-]')?.className.match(/st-key-(\\S+)/)[1]"
    while "discarded" not in reached and len(reached) < 30:
        page.keyboard.press("Tab")
        reached.add(page.evaluate(control))
    page.keyboard.press("Space")
    drawn(page, other_than=before)
    assert {"curves", "x", "smooth", "discarded"} <= reached
    page.wait_for_url("**discarded=false*")
    page.evaluate("() => { Plotly.purge = (host) => { window.cleared = host.isConnected; } }")
    for pause in (0, 50, 150, 300, 600):
        press(page, "+")
        page.wait_for_timeout(pause)
        press(page, *["ArrowRight"] * 3)
    moved = in_view(page)
    page.wait_for_timeout(1000)
    assert (in_view(page), page.evaluate("window.cleared")) == (moved, None)
    page.get_by_role("link", name="Runs").first.click()
    page.wait_for_function("() => window.cleared !== undefined")
    assert page.evaluate("window.cleared") is False, "the chart was no longer on the page"


def is_zoom(state: WidgetState) -> bool:
    return '"turn"' in state.json_value


def without_zoom(message: bytes) -> bytes | None:
    """The message of a page as one whose chart has reported nothing sends it; None for one that reports no zoom."""
    parsed = BackMsg.FromString(message)
    states = parsed.rerun_script.widget_states.widgets
    if not any(map(is_zoom, states)):
        return None
    for state in list(filter(is_zoom, states)):
        states.remove(state)
    without: bytes = parsed.SerializeToString()
    return without


@pytest.mark.system
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_refresh_that_crosses_a_zoom_does_not_undo_it(page: Page, site: str, is_lost: bool) -> None:
    """The chart asks again for a zoom that never arrived, and ignores what was asked before it."""
    zooms: list[bytes] = []
    late: list[bytes] = []

    def forward(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(message: str | bytes) -> None:
            without = without_zoom(message) if isinstance(message, bytes) else None
            if without is not None and not zooms:
                zooms.append(without)
                late.extend([] if is_lost else [without])
                message = without if is_lost else message
            server.send(message)

        def to_page(message: str | bytes) -> None:
            if late:  # the server is at work: what comes now is answered by itself, and after the zoom
                server.send(late.pop())
            route.send(message)

        route.on_message(to_server)
        server.on_message(to_page)

    page.route_web_socket("**/_stcore/stream", forward)
    page.goto(f"{site}/run?run=one")
    whole = drawn(page)
    press(page, "+")
    drawn(page, other_than=whole)
    page.wait_for_timeout(1000)
    first, last = live_ends(page)
    assert zooms
    assert 150 < first < last < 650
    page.wait_for_url("**steps=*")


@pytest.mark.system
def test_a_refresh_that_crosses_the_choice_of_an_axis_does_not_undo_it(page: Page, site: str) -> None:
    chosen: list[bytes] = []

    def forward(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(message: str | bytes) -> None:
            if isinstance(message, bytes) and b"Tokens" in message and not chosen:
                chosen.append(message)
            server.send(message)

        def to_page(message: str | bytes) -> None:
            if len(chosen) == 1:  # the server answers the choice: a refresh with the address from before it comes in
                chosen.append(chosen[0])
                server.send(chosen[0])
            route.send(message)

        route.on_message(to_server)
        server.on_message(to_page)

    page.route_web_socket("**/_stcore/stream", forward)
    page.goto(f"{site}/compare?runs=one,two")
    drawn(page)
    wait_for_refreshes(page)
    page.evaluate(f"""() => {{
        const host = document.querySelector('{FIGURE}');
        window.drawnAxes = [];
        host.on('plotly_afterplot', () => drawnAxes.push(host._fullLayout.xaxis.title.text));
    }}""")
    click_on(page.locator(".st-key-x").get_by_text("Tokens"))
    page.wait_for_url("**x=Tokens**")
    wait_for_refreshes(page)
    assert len(chosen) == 2
    assert set(page.evaluate("drawnAxes")) == {"Tokens"}


@pytest.mark.system
def test_a_figure_that_arrives_after_a_newer_one_changes_nothing(page: Page, site: str) -> None:
    page.goto(f"{site}/run?run=one")
    whole = drawn(page)
    held: list[Route] = []
    page.route("**/lossguard/figures/*", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    for count in (1, 2):
        press(page, "+")
        deadline = time.monotonic() + 60
        while len(held) < count:  # handlers run only while Playwright waits
            assert time.monotonic() < deadline
            page.wait_for_timeout(50)
    for each in held:
        with page.expect_event("requestfinished", lambda request, held=each: request == held.request):
            each.continue_()
    drawn(page, other_than=whole)
    first, last = in_view(page)
    assert last - first == pytest.approx(STEPS / 4, rel=0.1)


LINES = f"""[...new Set(document.querySelector('{FIGURE}')._fullData.map(trace => trace.legendgroup))]
    .filter(name => name !== 'not finite').sort()"""


def test_selected_runs_are_compared_and_a_reload_and_another_page_keep_the_view(page: Page, site: str) -> None:
    page.goto(f"{site}/?find=project%3Dgpt-small&state=finished")
    for place, label in enumerate(("Compare 1 run", "Compare 2 runs")):
        click_on(page.locator("[data-testid=stCheckbox] label", has_text="Select").nth(place))
        expect(page.get_by_role("link", name=label)).to_be_visible()
    click_on(page.get_by_role("link", name="Compare 2 runs"))
    first = drawn(page)
    assert page.evaluate(LINES) == ["stdlib bytes (one)", "stdlib bytes (two)"]
    click_on(page.locator(".st-key-x").get_by_text("Tokens"))
    drawn(page, other_than=first)
    page.wait_for_function(f"document.querySelector('{FIGURE}')?._fullLayout?.xaxis.title.text === 'Tokens'")
    second = drawn(page)
    press(page, "+")
    drawn(page, other_than=second)
    seen = in_view(page)
    assert STEPS < seen[0] < seen[1] < STEPS * 32 * 256
    page.wait_for_url("**view=*")
    page.reload()
    compared = drawn(page)
    assert in_view(page) == pytest.approx(seen, rel=1e-4)
    click_on(page.locator(".st-key-legend").get_by_text("stdlib bytes (two)"))
    page.wait_for_url("**/run?run=two")
    drawn(page, other_than=compared)
    click_on(page.get_by_role("link", name="Compare", exact=True).first)
    page.wait_for_url("**/compare?runs=**")
    both = f"() => document.querySelector('{FIGURE}')?._fullData && {LINES}.length === 2"
    page.wait_for_function(both, timeout=60_000)


NAMES = "table => [...table.querySelectorAll('tbody th')].map(cell => cell.textContent.at(-1)).join('')"
FOCUSED = "document.activeElement.shadowRoot.activeElement.dataset.focus"
TICK_AND_CLEAR = """table => {
    table.querySelectorAll('tbody input')[4].click(); // the session does not know of it yet when all are cleared
    document.querySelector('.st-key-clear-selected button').click();
}"""


def test_runs_are_found_sorted_selected_and_saved_then_archived_and_one_reported(
    page: Page, site: str, engine: sa.Engine
) -> None:
    page.goto(f"{site}/?layout=Table&columns=last+loss&find=project%3Dsweep&sort=newest+first")
    table = page.get_by_role("table", name="Runs")
    expect(table.get_by_role("row")).to_have_count(6)
    assert table.evaluate(NAMES) == "01234"
    header = table.get_by_role("columnheader", name="last loss")
    header.get_by_role("button").press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    page.wait_for_url("**sort=last+loss%2C+ascending**")  # of all runs, not only of those that the table shows
    assert table.evaluate(NAMES) == "20314"
    assert page.evaluate(FOCUSED).startswith("sort ")
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert table.evaluate(NAMES) == "30214"
    table.evaluate("table => { table.isSame = true }")
    boxes = table.get_by_role("checkbox")
    boxes.nth(1).focus()
    page.keyboard.press("Space")
    boxes.nth(3).click(modifiers=["Shift"])
    expect(page.get_by_role("link", name="Compare 3 runs")).to_be_visible()
    assert table.evaluate("table => table.isSame"), "ticks do not draw it anew"
    assert page.evaluate(FOCUSED) == "select s2"
    table.evaluate(TICK_AND_CLEAR)
    expect(page.get_by_text("Select runs to compare")).to_be_visible()
    expect(table.get_by_role("checkbox", checked=True)).to_have_count(0)
    with page.expect_download() as download:
        click(page, "CSV")
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == '"Run","State","Steps","last loss","Open incidents","Last report","Tags"'
    assert [line.split(",")[3] for line in lines[1:]] == ['"Infinity"', '"10"', '"9.5"', '"NaN"', '""']
    before = box_of(table)
    boxes.nth(1).check()
    expect(page.get_by_role("link", name="Compare 1 run")).to_be_visible()
    # Else the next press hits another row. A table that is drawn anew at this moment has no box.
    wait_for(lambda: table.bounding_box() == before, seconds=60, what="the table where it was before")
    with page.expect_download(timeout=60_000) as download:
        page.get_by_test_id("stDownloadButton").get_by_role("button").click()
    assert "<title>" in download.value.path().read_text(encoding="utf-8")
    boxes.nth(2).check()
    expect(page.get_by_role("link", name="Compare 2 runs")).to_be_visible()
    open_dialog(page, "Archive", exact=True)
    confirm(page, "Archive")
    expect(page.get_by_text("2 runs archived.")).to_be_visible()
    expect(table.get_by_role("row")).to_have_count(4)
    with reading(engine) as session:
        assert {run.id for run in queries.runs(session) if run.archived_at is not None} == {"s0", "s3"}


SCROLLED = "document.querySelector('[data-testid=stMain]').scrollTop"


@pytest.mark.system
def test_back_returns_to_the_list_as_it_was_and_a_box_on_the_page_of_a_run_shows_another(page: Page, site: str) -> None:
    page.set_viewport_size({"width": 1000, "height": 500})
    page.goto(f"{site}/?project=sweep&sort=by+name")
    last = page.get_by_role("link", name="sweep / <b>4")
    last.scroll_into_view_if_needed()
    page.wait_for_selector(SETTLED)
    place, entries = page.evaluate(SCROLLED), page.evaluate("history.length")
    assert place > 0
    last.click()
    page.wait_for_url("**/run?run=s4")
    page.wait_for_selector(SETTLED)
    page.go_back()
    expect(last).to_be_visible()
    wait_for(lambda: page.evaluate(SCROLLED) == place, seconds=60, what="the list where it was")
    assert page.url == f"{site}/?project=sweep&sort=by+name"
    assert page.evaluate("history.length") == entries + 1
    page.go_forward()
    page.wait_for_url("**/run?run=s4")
    page.wait_for_selector(SETTLED)
    click(page, "Other runs")
    page.locator(".st-key-other-run input").click()
    page.keyboard.type("s2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="sweep / <b>2")).to_be_visible()
    assert page.url == f"{site}/run?run=s2"


def test_a_warning_leads_to_the_incident_and_an_approval_that_a_refresh_does_not_disturb(
    page: Page, site: str, engine: sa.Engine
) -> None:
    report_a_spike(engine, run_id="asking")
    page.goto(f"{site}/run?run=asking")
    drawn(page)
    expect(page).to_have_title("(1) DIVERGED - Run gpt-small / asking - Lossguard")
    sentence = page.get_by_text("DIVERGED: loss ").first.inner_text()
    page.goto(f"{site}/?find=asking")
    expect(page.get_by_text(sentence)).to_be_visible()
    page.goto(f"{site}/?find=asking&layout=Table")
    expect(page.get_by_role("cell", name="DIVERGED", exact=True)).to_be_visible()
    page.go_back()
    page.go_back()
    drawn(page)
    row = page.get_by_role("button", name="#1 divergence")
    click_on(row)
    page.wait_for_url("**incident=1")
    details = page.get_by_text("Onset at step 6")
    expect(details).to_be_visible()
    row.press("Enter")
    page.wait_for_url(lambda address: "incident=" not in address)
    expect(details).to_have_count(0)  # the curves are back in their place
    name = page.locator(f"{FIGURE} g.textpoint").filter(has_text="#1").first
    name.scroll_into_view_if_needed()
    number = box_of(name)
    page.mouse.click(number["x"] + number["width"] / 2, number["y"] + number["height"] / 2)
    page.wait_for_url("**/incident?run=asking&incident=1")
    page.go_back()
    open_dialog(page, "Approve")
    word = page.get_by_label("To confirm, type")
    expect(word).to_be_focused()
    word.fill("aprove")
    click_on(page.get_by_role("dialog").get_by_role("button", name="Approve", exact=True))
    expect(page.get_by_text('Type "approve" into the field to confirm.')).to_be_visible()
    word.fill("approve")
    wait_for_refreshes(page, 4)  # of the dialog, too
    click_on(page.get_by_role("dialog").get_by_role("button", name="Approve", exact=True))
    expect(page.get_by_text("Intervention 1 approved.")).to_be_visible()
    expect(page).to_have_title("DIVERGED - Run gpt-small / asking - Lossguard")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    assert trail(engine)[0] == "approve"


def test_an_open_dialog_offers_nothing_once_somebody_else_has_decided_and_then_a_rollback_is_ordered_by_hand(
    page: Page, site: str, engine: sa.Engine, collector: str
) -> None:
    report_a_spike(engine, run_id="shared")
    page.goto(f"{site}/incident?run=shared&approve=1")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("To confirm, type")).to_be_visible()
    with Client(collector) as client:
        (proposal,) = client.get("/runs/shared")["interventions"]
        client.request("POST", f"/interventions/{proposal['id']}/reject", {})
    expect(dialog.get_by_text("no longer waits for a decision: it was rejected")).to_be_visible()
    expect(dialog.get_by_label("To confirm, type")).to_have_count(0)
    click_on(dialog.get_by_role("button", name="Close").last)
    expect(dialog).to_have_count(0)
    reason = open_dialog(page, "Roll back manually").get_by_label("Reason for the audit trail")
    expect(dialog.get_by_label("To confirm, type")).to_be_focused()
    page.evaluate("delete document.querySelector('[data-testid=stDialog]').dataset.focused")  # as if it had just opened
    reason.fill("the shard is bad")
    wait_for_refreshes(page, 2)
    expect(reason).to_be_focused()
    expect(reason).to_have_value("the shard is bad")
    grow(engine, 670, "shared")
    expect(dialog.get_by_text("Roll back from step 680")).to_be_visible()  # what it costs by now
    confirm(page, "Roll back")
    expect(page.get_by_text("Rollback to step 500 ordered.")).to_be_visible()
    expect(dialog).to_have_count(0)
    with reading(engine) as session:
        line = access.trail(session)[0]
        assert (line.action, line.details["reason"]) == ("rollback", "the shard is bad")


@pytest.mark.system
def test_a_closed_dialog_hands_nothing_to_the_next_one_and_a_run_that_ends_closes_none(
    page: Page, site: str, engine: sa.Engine
) -> None:
    page.goto(f"{site}/?layout=Table&find=project%3Dgpt-small&state=finished&sort=by+name")
    boxes, dialog = page.get_by_role("table", name="Runs").get_by_role("checkbox"), page.get_by_role("dialog")
    for place in (1, 2):
        boxes.nth(place).check()
        expect(page.get_by_role("link", name="Compare 1 run")).to_be_visible()
        field = open_dialog(page, "Edit", exact=True).get_by_label("Name")
        expect(field).to_have_value("stdlib bytes")
        field.fill("a name that is not sent")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        boxes.nth(place).uncheck()
        expect(page.get_by_text("Select runs to compare")).to_be_visible()
    seed(engine, run_id="ending", now=time.time())
    page.goto(f"{site}/run?run=ending")
    note = open_dialog(page, "Add a note").get_by_label("Note", exact=True)
    note.fill("half a sente")
    with writing(engine) as session:
        run, now = stored(session, "ending"), time.time()
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=now, now=now)
    wait_for_refreshes(page, 4)
    expect(note).to_have_value("half a sente")


@pytest.mark.system
def test_the_scorecard_leads_to_the_run_whose_sites_it_shows(page: Page, site: str, engine: sa.Engine) -> None:
    with writing(engine) as session:
        for run_id in ("first", "second"):
            store_run(session, run_id, policy={"mode": "observe"})
    page.goto(f"{site}/scorecard?run=second")
    click_on(page.get_by_role("link", name="To the run"))
    page.wait_for_url("**/run?run=second")


def test_a_run_on_hold_is_released(page: Page, site: str, engine: sa.Engine, collector: str) -> None:
    report_a_spike(engine, run_id="held")
    with Client(collector) as client:
        client.request("POST", "/runs/held/hold", {"reason": "the disk is full"})
        with reading(engine) as session:
            run = stored(session, "held")
            order = queries.orders(session, run=run)[-1]
        client.request("PUT", f"/orders/{order.id}", {"key": order.key, "state": "applied"})
        page.goto(f"{site}/run?run=held")
        expect(page.get_by_text("on hold until an operator decides")).to_be_visible()
        expect(page.get_by_text("the disk is full").first).to_be_visible()
        open_dialog(page, "Release")
        confirm(page, "Release")
        expect(page.get_by_text("Hold released. Training continues.")).to_be_visible()
        expect(page.get_by_text("on hold until an operator decides")).to_have_count(0)
        assert client.get("/runs/held")["interventions"][-1]["kind"] == "release"
    assert trail(engine)[0] == "release"


PINNED = f"document.querySelector('{FIGURE}')._fullData.filter(trace => trace.name === 'note').map(trace => trace.x[0])"
SCROLLS = """() => {
    const box = document.querySelector('[data-testid=stDataFrame]');
    const table = box.querySelector('.dvn-scroller');
    return [box.clientWidth <= innerWidth, table.scrollWidth > table.clientWidth,
            table.scrollHeight <= table.clientHeight + 1, getComputedStyle(table).overflowX];
}"""


def test_on_a_phone_a_run_is_found_and_a_note_added_and_deleted(browser: Browser, site: str, engine: sa.Engine) -> None:
    with phone(browser) as page:
        page.goto(f"{site}/?state=finished")
        expect(page.locator("[class*=st-key-card-]").first).to_be_in_viewport(ratio=0.9)
        expect(page.locator(".st-key-state")).to_be_hidden()
        click(page, "Filters (1)")
        expect(page.locator(".st-key-state")).to_be_visible()
        page.goto(f"{site}/run?run=two")
        before = drawn(page)
        expect(page.locator(FIGURE).get_by_text("Loss (nats per token)")).to_be_in_viewport()
        plot = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
        assert (plot["height"] > 300, plot["y"] + plot["height"] < 844) == (True, True), "the chart on the first screen"
        dialog = open_dialog(page, "Add a note")
        dialog.get_by_label("Note", exact=True).fill("the shard was bad")
        dialog.get_by_label("Step", exact=True).fill("409")
        click_on(dialog.get_by_role("button", name="Add", exact=True))
        expect(page.get_by_text("The note was added.")).to_be_visible()
        expect(page.get_by_text("the shard was bad")).to_be_visible()
        drawn(page, other_than=before)
        wait_for(lambda: page.evaluate(PINNED) == [409], seconds=60, what="the note at its step")
        open_dialog(page, "delete")
        click_on(dialog.get_by_role("button", name="Delete", exact=True))
        expect(page.get_by_text("the shard was bad")).to_have_count(0)
        page.goto(f"{site}/trainer-lab")
        page.locator(".dvn-scroller").first.wait_for()
        fits = [True, True, True, "auto"]
        wait_for(lambda: page.evaluate(SCROLLS) == fits, seconds=60, what="a table that scrolls in its box")
    with reading(engine) as session:
        run = stored(session, "two")
        assert step_notes.step_notes(session, run=run) == []


WIDER_THAN_THEIR_BOX = "[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth).length"
CUT = """[...document.querySelectorAll('td')].filter(cell => cell.scrollWidth > cell.clientWidth + 1)
    .concat([...document.querySelectorAll('.chart text')].filter(text => text.getBoundingClientRect().left < 0))
    .map(each => each.textContent)"""
HEADS = "[...document.querySelectorAll('thead')].map(head => getComputedStyle(head).display)"
NAME = "getComputedStyle(document.querySelector('td[data-name=Outcome]'), '::before').content"


def test_a_report_is_read_without_a_network_on_a_laptop_and_on_a_phone_and_printed(
    browser: Browser, store: sa.Engine, tmp_path: Path
) -> None:
    seed(store, now=time.time(), state=RunState.FINISHED)
    hostile_run(store)
    for run_id, num_pictures in (("spiky-1", 4), ("r1", 0)):
        file = tmp_path / f"{run_id}.html"
        file.write_text(report_of(run_id), encoding="utf-8")
        for width in (1440, 390):
            with browser.new_context(viewport={"width": width, "height": 900}, offline=True) as context:
                shown = context.new_page()
                complaints: list[str] = []
                shown.on("console", lambda message: complaints.append(message.text))  # noqa: B023
                shown.on("pageerror", lambda error: complaints.append(str(error)))  # noqa: B023
                shown.on("request", lambda request: complaints.append(request.url))  # noqa: B023
                shown.goto(file.as_uri())
                shown.evaluate("dispatchEvent(new Event('beforeprint'))")  # which draws those far below, too
                sizes = shown.evaluate("[...document.querySelectorAll('.chart')].map(each => each.clientHeight)")
                drawn_lines = shown.evaluate("document.querySelectorAll('.chart .scatterlayer path').length")
                assert drawn_lines >= 10 * num_pictures
                assert (complaints, len(sizes), all(size > 100 for size in sizes)) == (
                    [file.as_uri()],
                    num_pictures,
                    True,
                )
                assert shown.evaluate("document.documentElement.scrollWidth") == width
                if (run_id, width) == ("spiky-1", 390):
                    assert (shown.evaluate(WIDER_THAN_THEIR_BOX), shown.evaluate(CUT)) == (0, [])
                    assert shown.evaluate(NAME) == '"Outcome"'
                    shown.emulate_media(media="print")
                    assert set(shown.evaluate(HEADS)) == {"table-header-group"}
                    assert shown.evaluate(NAME) == "none"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the provider, in a thread of this process
def test_people_log_in_act_as_their_groups_may_and_the_audit_trail_has_their_names(
    browser: Browser, engine: sa.Engine, collector: str, tmp_path: Path
) -> None:
    report_a_spike(engine, run_id="guarded")
    port = free_port()
    with provider() as identities:
        file = login_file(tmp_path, identities, f"http://127.0.0.1:{port}")
        environment = {"LOSSGUARD_URL": collector, "LOSSGUARD_DASHBOARD_LOGIN": str(file)}
        with dashboard(str(engine.url), port, **environment) as served:

            @contextmanager
            def logged_in(name: str) -> Iterator[Page]:
                with opened(browser, viewport=LAPTOP) as page:
                    page.goto(served.url)
                    expect(page.get_by_text("Log in to see the runs.")).to_be_visible()
                    assert page.get_by_text("guarded").count() == 0
                    click(page, "Log in")
                    page.get_by_role("button", name=name).or_(page.get_by_text(name, exact=False)).first.click()
                    yield page

            values = f"{served.url}/lossguard/values/a"
            with browser.new_context() as context:
                assert context.request.get(values).status == 401
            with logged_in("ron") as page:
                expect(page.get_by_text("guarded").first).to_be_visible()
                page.goto(f"{served.url}/run?run=guarded")
                expect(open_dialog(page, "Edit").get_by_text("Token with the scope")).to_be_visible()
                assert page.context.request.get(values).status == 404
            with logged_in("ada") as page:
                expect(page.get_by_text("Ada L\u00f6w <ada@\u2060example.org>")).to_be_visible()
                page.goto(f"{served.url}/incident?run=guarded")
                open_dialog(page, "Roll back manually")
                confirm(page, "Roll back")
                expect(page.get_by_text("Rollback to step 500 ordered.")).to_be_visible()
                with reading(engine) as session:
                    assert access.trail(session)[0].who == "Ada L\u00f6w <ada@example.org> (token anybody)"
            with logged_in("eve") as page:
                expect(page.get_by_text("none of your groups may read here")).to_be_visible()
                assert page.context.request.get(values).status == 403


TICKS = f"[...document.querySelectorAll('{FIGURE} .ytick text')].map(each => each.textContent)"
MAX_TICK_LETTERS = 10
"""As many as there is room for."""


def test_every_page_of_usual_and_hostile_runs_is_drawn_without_an_error_or_a_violation_of_the_policy(
    page: Page, site: str, engine: sa.Engine
) -> None:
    page.set_viewport_size({"width": 1440, "height": 2400})  # all of it is in view
    usual: dict[str, str | Callable[[Page], Any]] = {
        "": "Runs", "compare?runs=one,two": "Compare", "incident?run=one": "", "next-token?run=one": "",
        "lab?run=one": "", "lab?source=A+CSV+file": "Detector lab", "trainer-lab": "", "scorecard": "Scorecard",
    }  # fmt: skip
    for path, heading in usual.items():
        page.goto(f"{site}/{path}")
        if heading:
            page.get_by_role("heading", name=str(heading)).wait_for()
        else:
            drawn(page)
        if "CSV" in path:
            curve = "step,loss\n" + "".join(f"{step},2.{step % 7}\n" for step in range(300))
            file: FilePayload = {"name": "mine.csv", "mimeType": "text/csv", "buffer": curve.encode()}
            page.locator("input[type=file]").set_input_files(file)
            drawn(page)
        page.wait_for_selector(SETTLED)
        page.wait_for_timeout(500)  # the lower part, tables and fonts come later
    for run_id in sorted({run_id for _, run_id in HOSTILE}):
        BY_ID[run_id].report(engine)
    for path, run_id in HOSTILE:
        page.goto(f"{site}/{path}?run={run_id}")
        drawn(page)
        ticks = page.evaluate(TICKS)
        assert (ticks == []) is (run_id == "nothing-reported")
        long_ticks = [text for text in ticks if text in ("NaN", "Infinity") or len(text) > MAX_TICK_LETTERS]
        assert long_ticks == [] or path == "next-token"  # its bars have the tokens beside them


def test_a_page_elsewhere_can_neither_frame_the_dashboard_nor_use_its_files_or_its_websocket(
    browser: Browser, site: str
) -> None:
    attack = (
        f'<iframe src="{site}/incident?run=one"></iframe><script src="{site}/lossguard/plotly.min.js"></script>'
        f'<script>const socket = new WebSocket("{site.replace("http", "ws")}/_stcore/stream");'
        'socket.onopen = () => window.result = "open"; socket.onerror = () => window.result = "refused"</script>'
    )
    with answering(200, attack.encode()) as elsewhere, opened(browser) as page:
        page.goto(elsewhere.url)
        page.wait_for_function("window.result")
        assert page.evaluate("[window.result, typeof window.Plotly]") == ["refused", "undefined"]
        (frame,) = page.frames[1:]
        assert not frame.url.startswith(site), "the browser shows an error in place of the page"
        assert frame.get_by_role("button").count() == 0
