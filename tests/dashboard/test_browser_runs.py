"""The list of runs in the system's Chromium: select rows, edit them, download a report; and on a phone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Locator, expect

from db import migrate, queries
from db.engine import create_engine, reading, writing
from lossguard.states import RunState
from tests.dashboard.browser import chromium, dashboard
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving
from tests.db.seed import add_run

pytestmark = [pytest.mark.slow(5), pytest.mark.needs("chromium")]
HEADER_PIXELS = ROW_PIXELS = 35


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


def tick(table: Locator, row: int) -> None:
    """The grid is drawn on a canvas: its checkboxes are places."""
    table.click(position={"x": 18, "y": HEADER_PIXELS + row * ROW_PIXELS + ROW_PIXELS / 2})


def test_selected_rows_are_archived_and_the_report_of_one_is_downloaded(browser: Browser, engine: sa.Engine) -> None:
    with (
        serving(engine) as url,
        dashboard(str(engine.url), LOSSGUARD_URL=url) as served,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?layout=Table&columns=last+loss&sort=by+name")
        table = page.get_by_test_id("stDataFrame")
        expect(page.get_by_text("Select runs to compare")).to_be_visible(timeout=60_000)
        before = table.bounding_box()
        tick(table, 0)
        expect(page.get_by_role("link", name="Compare 1 run")).to_be_visible(timeout=30_000)
        assert table.bounding_box() == before  # else the next press hits another row
        with page.expect_download(timeout=60_000) as download:
            page.get_by_role("button", name="Report").click()
        assert "<title>" in download.value.path().read_text(encoding="utf-8")
        tick(table, 1)
        expect(page.get_by_role("link", name="Compare 2 runs")).to_be_visible(timeout=30_000)
        page.get_by_role("button", name="Archive", exact=True).click()
        page.get_by_label('To confirm, type "archive"').fill("archive")
        page.locator(".st-key-confirm-yes button").click()
        expect(page.get_by_text("2 runs archived.")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("No run matches these filters.")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("2 not shown")).to_be_visible()
    with reading(engine) as session:
        assert all(run.archived_at is not None for run in queries.runs(session))


def test_a_phone_shows_the_first_run_and_unfolds_the_filters(browser: Browser, engine: sa.Engine) -> None:
    with (
        dashboard(str(engine.url)) as served,
        browser.new_context(viewport={"width": 390, "height": 844}) as context,
    ):
        page = context.new_page()
        page.goto(f"{served.url}/?state=finished")
        first = page.locator("[class*=st-key-card-]").first
        expect(first).to_be_in_viewport(ratio=0.9, timeout=60_000)
        expect(page.locator(".st-key-state")).to_be_hidden()
        page.get_by_role("button", name="Filters (1)").click()
        expect(page.locator(".st-key-state")).to_be_visible(timeout=30_000)


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
        expect(page.get_by_role("button", name="Show more (100 of 130 runs)")).to_be_visible(timeout=60_000)
        tick(page.get_by_test_id("stDataFrame"), 0)
        page.get_by_role("button", name="Select all 130").click(timeout=30_000)
        expect(page.get_by_text("130 runs selected (at most 12 can be compared)")).to_be_visible(timeout=30_000)
        page.goto(f"{served.url}/compare?runs=one")
        find = page.get_by_role("textbox", name="Find runs")
        find.fill('name="sweep 3"')
        find.press("Enter")
        runs = page.locator(".st-key-compared").get_by_role("combobox")
        runs.click()
        options = page.get_by_role("option")
        expect(options.filter(has_text="sweep 3 (many-3)")).to_be_visible(timeout=30_000)
        expect(options).to_have_count(1)
