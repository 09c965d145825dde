"""The Incident page in the system's Chromium: an operator acts while the page is refreshed."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Page, expect

from db import access, queries
from db.engine import reading
from tests.dashboard.browser import chromium, dashboard, drawn, wait_for_refreshes
from tests.dashboard.live import report_a_spike
from tests.dashboard.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1440, "height": 900})


def test_a_dialog_stays_open_while_the_page_is_refreshed_and_a_local_operator_needs_no_token(
    page: Page, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_a_spike(sqlite_engine)
    with serving(sqlite_engine) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        with dashboard(str(sqlite_engine.url)) as served:
            page.goto(f"{served.url}/incident?run=asking")
            drawn(page)
            page.get_by_role("button", name="Roll back manually").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("Reason for the audit trail").fill("the shard is bad")
            wait_for_refreshes(page, 2)
            dialog.get_by_label("To confirm, type").fill("roll back")
            dialog.get_by_role("button", name="Roll back", exact=True).click()
            expect(page.get_by_text("Rollback to step 500 ordered.")).to_be_visible(timeout=30_000)
            expect(dialog).to_have_count(0, timeout=30_000)
    with reading(sqlite_engine) as session:
        (line, *_) = access.trail(session)
        assert (line.action, line.details["reason"]) == ("rollback", "the shard is bad")
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        assert queries.orders(session, run=run)[-1].rewind_to == 500
