"""The list of runs in the system's Chromium: select rows, edit them, download a report; and on a phone."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, expect

from db import migrate, queries
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.browser import box_of, chromium, dashboard
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving
from tests.db.seed import add_run, add_segment, add_steps
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow(5), pytest.mark.needs("chromium")]
NAMES = "table => [...table.querySelectorAll('tbody th')].map(cell => cell.textContent)"
TICK_AND_CLEAR = """table => {
    table.querySelectorAll('tbody input')[4].click(); // the session does not know of it yet when all are cleared
    document.querySelector('.st-key-clear-selected button').click();
}"""
FOCUSED = "document.activeElement.shadowRoot.activeElement.dataset.focus"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/lossguard.db")
    migrate.upgrade(engine)
    for run_id in ("one", "two"):
        seed(engine, run_id=run_id, state=RunState.FINISHED, now=time.time())
    yield engine
    engine.dispose()


def test_selected_rows_are_archived_and_the_report_of_one_is_downloaded(browser: Browser, engine: sa.Engine) -> None:
    with (
        serving(engine) as url,
        dashboard(str(engine.url), LOSSGUARD_URL=url) as served,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?layout=Table&columns=last+loss&sort=by+name")
        table = page.get_by_role("table", name="Runs")
        rows = table.get_by_role("row")
        expect(page.get_by_text("Select runs to compare")).to_be_visible()
        before = box_of(table)
        rows.nth(1).get_by_role("checkbox").check()
        expect(page.get_by_role("link", name="Compare 1 run")).to_be_visible()
        # Else the next press hits another row. A table that is drawn anew at this moment has no box.
        wait_for(lambda: table.bounding_box() == before, seconds=30, what="the table where it was before")
        with page.expect_download(timeout=60_000) as download:
            page.get_by_test_id("stDownloadButton").get_by_role("button").click()
        assert "<title>" in download.value.path().read_text(encoding="utf-8")
        rows.nth(2).get_by_role("checkbox").check()
        expect(page.get_by_role("link", name="Compare 2 runs")).to_be_visible()
        page.get_by_role("button", name="Archive", exact=True).click()
        page.get_by_label('To confirm, type "archive"').fill("archive")
        page.locator(".st-key-confirm-yes button").click()
        expect(page.get_by_text("2 runs archived.")).to_be_visible()
        expect(page.get_by_text("No run matches these filters.")).to_be_visible()
        expect(page.get_by_text("2 not shown")).to_be_visible()
    with reading(engine) as session:
        assert all(run.archived_at is not None for run in queries.runs(session))


def test_a_header_sorts_the_rows_with_nan_and_nothing_last_keys_select_a_range_and_clear_unselects_all(
    browser: Browser, engine: sa.Engine
) -> None:
    with writing(engine) as session:
        for number, last in enumerate((10.0, math.nan, 9.5, math.inf, None)):
            run = add_run(session, f"r{number}", name=f"<b>{number}", started_at=10.0 - number)
            if last is not None:
                add_steps(session, run, add_segment(session, run, f"k{number}"), range(2), loss=[1.0, last])
    with (
        dashboard(str(engine.url)) as served,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?layout=Table&columns=last+loss&find=-id%3Done+-id%3Dtwo&sort=newest+first")
        table = page.get_by_role("table", name="Runs")
        expect(table.get_by_role("row")).to_have_count(6)
        assert table.evaluate(NAMES) == [f"gpt / <b>{number}" for number in range(5)]
        header = table.get_by_role("columnheader", name="last loss")
        header.get_by_role("button").press("Enter")
        expect(header).to_have_attribute("aria-sort", "ascending")
        assert table.evaluate(NAMES) == [f"gpt / <b>{number}" for number in (2, 0, 3, 1, 4)]
        assert page.evaluate(FOCUSED).startswith("sort ")
        page.keyboard.press("Enter")
        expect(header).to_have_attribute("aria-sort", "descending")
        assert table.evaluate(NAMES) == [f"gpt / <b>{number}" for number in (3, 0, 2, 1, 4)]
        table.evaluate("table => { table.isSame = true }")
        boxes = table.get_by_role("checkbox")
        boxes.nth(1).focus()
        page.keyboard.press("Space")
        boxes.nth(3).click(modifiers=["Shift"])
        expect(page.get_by_role("link", name="Compare 3 runs")).to_be_visible()
        assert table.evaluate("table => table.isSame")  # ticks do not draw it anew
        assert page.evaluate(FOCUSED) == "select r2"
        table.evaluate(TICK_AND_CLEAR)
        expect(page.get_by_text("Select runs to compare")).to_be_visible()
        expect(table.get_by_role("checkbox", checked=True)).to_have_count(0)
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        lines = download.value.path().read_text(encoding="utf-8").splitlines()
        assert lines[0] == '"Run","State","Steps","last loss","Open incidents","Last report","Tags"'
        assert [line.split(",")[3] for line in lines[1:]] == ['"Infinity"', '"10"', '"9.5"', '"NaN"', '""']


def test_a_phone_shows_the_first_run_and_unfolds_the_filters(browser: Browser, engine: sa.Engine) -> None:
    with (
        dashboard(str(engine.url)) as served,
        browser.new_context(viewport={"width": 390, "height": 844}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?state=finished")
        first = page.locator("[class*=st-key-card-]").first
        expect(first).to_be_in_viewport(ratio=0.9)
        expect(page.locator(".st-key-state")).to_be_hidden()
        page.get_by_role("button", name="Filters (1)").click()
        expect(page.locator(".st-key-state")).to_be_visible()


def test_a_list_of_many_runs_shows_a_page_selects_all_and_boxes_offer_those_found(
    browser: Browser, engine: sa.Engine
) -> None:
    with writing(engine) as session:
        for number in range(128):
            run = add_run(session, f"many-{number}", name=f"sweep {number}", started_at=float(number))
            run.state = RunState.FINISHED
    with (
        dashboard(str(engine.url)) as served,
        browser.new_context(viewport={"width": 1440, "height": 1200}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?layout=Table")
        expect(page.get_by_role("button", name="Show more (100 of 130 runs)")).to_be_visible()
        page.get_by_role("table", name="Runs").get_by_role("checkbox").nth(1).check()
        page.get_by_role("button", name="Select all 130").click(timeout=30_000)
        expect(page.get_by_text("130 runs selected (at most 12 can be compared)")).to_be_visible()
        page.goto(f"{served.url}/compare?runs=one")
        find = page.get_by_role("textbox", name="Find runs")
        find.fill('name="sweep 3"')
        find.press("Enter")
        runs = page.locator(".st-key-compared").get_by_role("combobox")
        runs.click()
        options = page.get_by_role("option")
        expect(options.filter(has_text="sweep 3 (many-3)")).to_be_visible()
        expect(options).to_have_count(1)
