"""Notes in the system's Chromium: a person adds one on a phone, and its pin appears on the chart."""

import time

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import expect

from db import queries, step_notes
from db.engine import reading
from tests.dashboard.browser import FIGURE, chromium, dashboard, drawn
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving

pytestmark = [pytest.mark.slow(10), pytest.mark.needs("chromium")]
PINNED = f"document.querySelector('{FIGURE}')._fullData.filter(trace => trace.name === 'note').map(trace => trace.x[0])"


def test_a_note_that_is_added_on_a_phone_is_listed_and_pinned_and_one_press_deletes_it(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(sqlite_engine, now=time.time())
    with serving(sqlite_engine) as url, chromium() as browser:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        with dashboard(str(sqlite_engine.url)) as served:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            page.goto(f"{served.url}/run?run=spiky-1")
            before = drawn(page)
            page.get_by_role("button", name="Add a note").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("Note", exact=True).fill("the shard was bad")
            dialog.get_by_label("Step", exact=True).fill("409")
            dialog.get_by_role("button", name="Add", exact=True).click()
            expect(page.get_by_text("The note was added.")).to_be_visible(timeout=30_000)
            expect(dialog).to_have_count(0, timeout=30_000)
            expect(page.get_by_text("the shard was bad")).to_be_visible(timeout=30_000)
            drawn(page, other_than=before)
            assert page.evaluate(PINNED) == [409]
            page.get_by_role("button", name="delete").click()
            dialog.get_by_role("button", name="Delete", exact=True).click()
            expect(page.get_by_text("the shard was bad")).to_have_count(0, timeout=30_000)
    with reading(sqlite_engine) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        assert step_notes.step_notes(session, run=run) == []
