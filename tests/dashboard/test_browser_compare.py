"""From the list of runs to their comparison in the system's Chromium; a link reproduces the view."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Page, expect

from db import migrate
from db.store.engine import create_engine
from lossguard.vocabulary.states import RunState
from tests.dashboard.browser import FIGURE, chromium, dashboard, drawn
from tests.dashboard.seed import STEPS, seed

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

LINES = f"""[...new Set(document.querySelector('{FIGURE}')._fullData.map(trace => trace.legendgroup))]
    .filter(name => name !== 'not finite').sort()"""
RANGE = f"document.querySelector('{FIGURE}')._fullLayout.xaxis.range"


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1440, "height": 1100})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/lossguard.db")
    migrate.upgrade(engine)
    seed(engine, run_id="one", state=RunState.FINISHED, now=time.time())
    seed(engine, run_id="two", state=RunState.FINISHED, now=time.time())
    yield engine
    engine.dispose()


def test_ticked_runs_are_compared_and_a_reload_and_another_page_keep_the_view(page: Page, engine: sa.Engine) -> None:
    with dashboard(str(engine.url)) as served:
        page.goto(served.url)
        for place, label in enumerate(("Compare 1 run", "Compare 2 runs")):
            page.locator("[data-testid=stCheckbox] label", has_text="Select").nth(place).click()
            expect(page.get_by_role("link", name=label)).to_be_visible()
        page.get_by_role("link", name="Compare 2 runs").click()
        first = drawn(page)
        assert page.evaluate(LINES) == ["stdlib bytes (one)", "stdlib bytes (two)"]
        page.locator(".st-key-x").get_by_text("Tokens").click()
        second = drawn(page, other_than=first)
        page.locator(FIGURE).first.focus()
        page.keyboard.press("+")
        drawn(page, other_than=second)
        seen = page.evaluate(RANGE)
        assert 0 < seen[0] < seen[1] < STEPS * 32 * 256
        page.wait_for_url("**view=*")
        page.reload()
        compared = drawn(page)
        assert page.evaluate(RANGE) == pytest.approx(seen, rel=1e-4)
        page.locator(".st-key-legend").get_by_text("stdlib bytes (two)").click()
        page.wait_for_url("**/run?run=two")
        drawn(page, other_than=compared)
        page.get_by_role("link", name="Compare", exact=True).first.click()
        page.wait_for_url("**/compare?runs=**")
        both = f"() => document.querySelector('{FIGURE}')?._fullData && {LINES}.length === 2"
        page.wait_for_function(both, timeout=60_000)
