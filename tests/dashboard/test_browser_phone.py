"""Pages and reports on a phone, 390 pixels wide, in the system's Chromium: nothing of a table is cut."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, expect

from db import queries
from db.records import step_notes
from db.store.engine import reading
from lossguard.vocabulary.states import RunState
from tests.dashboard.browser import FIGURE, chromium, dashboard, drawn
from tests.dashboard.report.reader import page as report_of
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow(6), pytest.mark.needs("chromium")]

PINNED = f"document.querySelector('{FIGURE}')._fullData.filter(trace => trace.name === 'note').map(trace => trace.x[0])"
WIDER_THAN_THEIR_BOX = "[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth).length"
CUT_CELLS = """[...document.querySelectorAll('td')].filter(cell => cell.scrollWidth > cell.clientWidth + 1)
    .map(cell => cell.textContent)"""
LEFT_OF_THE_PAGE = """[...document.querySelectorAll('svg.chart text')]
    .filter(text => text.getBoundingClientRect().left < 0).map(text => text.textContent)"""
HEADS = "[...document.querySelectorAll('thead')].map(head => getComputedStyle(head).display)"
NAMES = "getComputedStyle(document.querySelector('td[data-name=Outcome]'), '::before').content"
SCROLLS = """() => {
    const box = document.querySelector('[data-testid=stDataFrame]');
    const table = box.querySelector('.dvn-scroller');
    return [box.clientWidth <= innerWidth, table.scrollWidth > table.clientWidth,
            table.scrollHeight <= table.clientHeight + 1, getComputedStyle(table).overflowX];
}"""


def opened(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(url)
    return page


def test_tables_of_a_report_are_folded_and_printed_whole(store: sa.Engine, tmp_path: Path) -> None:
    seed(store, now=time.time(), state=RunState.FINISHED)
    path = tmp_path / "report.html"
    path.write_text(report_of("spiky-1"), encoding="utf-8")
    with chromium() as browser:
        page = opened(browser, path.as_uri())
        assert page.evaluate(WIDER_THAN_THEIR_BOX) == 0
        assert page.evaluate(CUT_CELLS) == []
        assert page.evaluate(LEFT_OF_THE_PAGE) == []
        assert page.evaluate(NAMES) == '"Outcome"'
        page.emulate_media(media="print")
        assert set(page.evaluate(HEADS)) == {"table-header-group"}
        assert page.evaluate(NAMES) == "none"


def test_a_note_that_is_added_on_a_phone_is_listed_and_pinned_one_press_deletes_it_and_tables_scroll_in_their_box(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(store, now=time.time())
    with serving(store) as url, chromium() as browser:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        with dashboard(str(store.url)) as served:
            page = opened(browser, f"{served.url}/run?run=spiky-1")
            before = drawn(page)
            page.get_by_role("button", name="Add a note").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("Note", exact=True).fill("the shard was bad")
            dialog.get_by_label("Step", exact=True).fill("409")
            dialog.get_by_role("button", name="Add", exact=True).click()
            expect(page.get_by_text("The note was added.")).to_be_visible()
            expect(dialog).to_have_count(0)
            expect(page.get_by_text("the shard was bad")).to_be_visible()
            drawn(page, other_than=before)
            wait_for(lambda: page.evaluate(PINNED) == [409], seconds=60, what="the note at its step")
            page.get_by_role("button", name="delete").click()
            dialog.get_by_role("button", name="Delete", exact=True).click()
            expect(page.get_by_text("the shard was bad")).to_have_count(0)
            page.goto(f"{served.url}/trainer-lab")
            page.locator(".dvn-scroller").first.wait_for()
            fits = [True, True, True, "auto"]
            wait_for(lambda: page.evaluate(SCROLLS) == fits, seconds=60, what="a table that scrolls in its box")
    with reading(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        assert step_notes.step_notes(session, run=run) == []
