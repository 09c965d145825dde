"""The tools of a chart in the system's Chromium, and what a viewer did to it when messages come late."""

import csv
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from db import migrate
from db.store.engine import create_engine
from demo import screenshots
from lossguard.vocabulary.states import RunState
from tests.dashboard.browser import FIGURE, box_of, chromium, dashboard, drawn
from tests.dashboard.seed import seed
from tests.dashboard.serving import Served
from tests.waiting import wait_for

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


def zooms(message: bytes) -> bool:
    """Whether a message of the page reports a zoom."""
    return any(map(is_zoom, BackMsg.FromString(message).rerun_script.widget_states.widgets))


def is_zoom(state: WidgetState) -> bool:
    return '"turn"' in state.json_value


def without_zoom(message: bytes) -> bytes:
    """The same message of a page whose chart has reported nothing."""
    parsed = BackMsg.FromString(message)
    states = parsed.rerun_script.widget_states.widgets
    for state in list(filter(is_zoom, states)):
        states.remove(state)
    without: bytes = parsed.SerializeToString()
    return without


def press_plus(page: Page) -> None:
    page.locator(FIGURE).first.focus()
    page.keyboard.press("+")


def test_a_refresh_with_the_url_from_before_a_zoom_does_not_undo_it(page: Page, served: Served) -> None:
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
    page.wait_for_url("**steps=*")


def test_the_chart_asks_again_where_the_answer_is_for_an_earlier_view(page: Page, served: Served) -> None:
    lost: list[bytes] = []

    def forward(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(message: str | bytes) -> None:
            if isinstance(message, bytes) and zooms(message) and not lost:
                lost.append(message)
                message = without_zoom(message)
            server.send(message)

        route.on_message(to_server)

    page.route_web_socket("**/_stcore/stream", forward)
    page.goto(f"{served.url}/run?run=done-1")
    whole = drawn(page)
    press_plus(page)
    drawn(page, other_than=whole)
    assert lost
    assert in_figure(page)[0] > 150


STRIP = ".lossguard-axis.shown"


def view(page: Page) -> dict[str, Any]:
    """What the first figure shows of panels, lines and ranges."""
    found: dict[str, Any] = page.evaluate(
        f"""() => {{
            const host = document.querySelector('{FIGURE}'), shown = host._fullLayout;
            return {{
                titles: host.layout.annotations.map(note => note.text[0]).join(''),
                height: shown.height,
                loss: shown.yaxis.range,
                hidden: [...new Set(host._fullData.filter(t => t.visible === 'legendonly').map(t => t.legendgroup))],
            }};
        }}"""
    )
    return found


NOTE_MESSAGES = """() => {
    window.messages = []; // those that were shown: each is gone after 2.5 s, which a busy machine may need to look
    const note = (added) => added.className === 'lossguard-message' && added.checkVisibility() && added.textContent;
    new MutationObserver((changes) => {
        for (const change of changes) window.messages.push(...[...change.addedNodes].map(note));
    }).observe(document.body, {childList: true, subtree: true});
}"""


def press(page: Page, title: str) -> None:
    page.locator(f'.modebar-btn[data-title="{title}"]').first.click()


def test_hidden_lines_collapsed_panels_and_a_zoom_along_y_survive_a_reload_and_back_undoes_them(
    page: Page, served: Served
) -> None:
    page.goto(f"{served.url}/run?run=done-1")
    drawn(page)
    whole = view(page)
    page.get_by_text("Grad norm (L2, before clipping)").click()
    page.wait_for_url("**collapsed=grad_norm*")
    closed = whole["height"] - 130
    wait_for(lambda: view(page)["height"] == closed, seconds=60, what="the chart without the closed panel")
    page.locator(".legendtoggle").nth(1).click()
    page.wait_for_url("**hidden=live+line*")
    unzoomed = view(page)
    box = box_of(page.locator(f"{FIGURE} .nsewdrag").first)
    x, top = box["x"] + box["width"] / 2, box["y"] + 0.2 * box["height"]
    page.mouse.move(x, top)
    page.mouse.down()
    page.mouse.move(x, top + 0.3 * box["height"], steps=4)
    page.mouse.move(x, top + 0.6 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_url("**y=loss*")
    changed = view(page)
    assert changed["hidden"] == ["live line"]
    assert changed["titles"] == "\u25be\u25b8\u25be\u25be\u25be"  # the second of five is closed
    assert changed["height"] == closed
    assert changed["loss"] != whole["loss"]
    page.reload()
    drawn(page)
    again = view(page)
    assert again.pop("loss") == pytest.approx(changed.pop("loss"), rel=1e-4)
    assert again == changed
    page.go_back()
    page.wait_for_url(lambda url: "y=loss" not in url)
    in_figure_now = f"document.querySelector('{FIGURE}')._fullLayout.yaxis.range.join()"
    page.wait_for_function(f"before => {in_figure_now} === before", arg=",".join(map(str, unzoomed["loss"])))
    assert view(page) == unzoomed


def test_the_buttons_of_a_chart_make_a_picture_a_file_and_a_link_and_show_it_on_the_full_screen(
    page: Page, served: Served, tmp_path: Path
) -> None:
    page.goto(f"{served.url}/run?run=done-1&steps=100-200")
    drawn(page)
    with page.expect_download() as picture:
        press(page, "Download as PNG")
    picture.value.save_as(tmp_path / "chart.png")
    assert picture.value.suggested_filename.endswith("-run-done-1.png")
    header = (tmp_path / "chart.png").read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert (header[:4], width) == (b"\x89PNG", 2 * page.evaluate(f"document.querySelector('{FIGURE}').clientWidth"))
    assert height > 2 * view(page)["height"]  # the title
    with page.expect_download() as values:
        press(page, "Download what is in view as CSV")
    values.value.save_as(tmp_path / "values.csv")
    assert values.value.suggested_filename == "done-1-steps-100-200.csv"
    rows = list(csv.DictReader((tmp_path / "values.csv").read_text().splitlines()))
    assert [row["first_step"] for row in rows if row["metric"] == "loss"] == [str(step) for step in range(100, 201)]
    page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }")
    page.evaluate(NOTE_MESSAGES)
    press(page, "Copy a link to this view")
    page.wait_for_function("() => window.messages.includes('Link copied.')")
    assert page.evaluate("window.copied") == page.url
    press(page, "Full screen")
    page.wait_for_function("() => document.fullscreenElement?.className === 'lossguard-chart'")
    page.keyboard.press("Escape")


def test_the_x_axis_stays_in_sight_below_long_panels_and_follows_a_zoom(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/run?run=done-1")
    drawn(page)
    strip = page.locator(STRIP)
    expect(strip).to_be_visible()
    box = box_of(strip)
    assert box["y"] + box["height"] == pytest.approx(900, abs=1)
    expect(strip.locator("span")).to_have_text(["0", "100", "200", "300", "400", "500", "600", "700"])
    text = strip.inner_text()  # before the zoom, which may be drawn at once
    press_plus(page)
    page.wait_for_function(f"before => document.querySelector('{STRIP}').innerText !== before", arg=text)
    assert len(strip.locator("span").all_inner_texts()) > 2
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 1000)")
    expect(strip).to_have_count(0)


PAGES = {"scorecard": "/scorecard"} | {
    name: path.format(run="done-1", other="done-1:0") for name, path in screenshots.PAGES.items()
}


def test_no_page_writes_an_error_or_a_warning_to_the_console(page: Page, served: Served) -> None:
    written: list[str] = []
    page.on("console", lambda each: written.append(f"{page.url}: {each.type}: {each.text}"))
    page.on("pageerror", lambda error: written.append(f"{page.url}: {error}"))
    for name, path in PAGES.items():
        page.goto(served.url + path)
        content = screenshots.CONTENT if name in screenshots.PAGES else "[data-testid=stHeading]"
        page.wait_for_selector(content, timeout=60_000)
        page.wait_for_selector('[data-testid=stApp][data-test-script-state="notRunning"]', timeout=60_000)
        page.wait_for_timeout(300)
    assert written == []
