"""The Run and the Incident page in the system's Chromium: an operator acts while the page is refreshed."""

import re
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, expect

from db import queries
from db.records import access
from db.store.engine import reading
from lossguard import Client
from tests.dashboard.browser import box_of, chromium, dashboard, drawn, wait_for_refreshes
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving
from tests.ports import free_port

pytestmark = [pytest.mark.slow(8), pytest.mark.needs("chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        yield context.new_page()


def problems(page: Page) -> list[str]:
    """Collects what the page writes to the console as a warning or an error."""
    found: list[str] = []
    page.on("console", lambda line: found.append(line.text) if line.type in ("warning", "error") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


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
            expect(page.get_by_text("Rollback to step 500 ordered.")).to_be_visible()
            expect(dialog).to_have_count(0)
    with reading(sqlite_engine) as session:
        (line, *_) = access.trail(session)
        assert (line.action, line.details["reason"]) == ("rollback", "the shard is bad")
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        assert queries.orders(session, run=run)[-1].rewind_to == 500


def test_a_warning_on_the_run_page_leads_to_the_incident_and_to_an_approval(
    page: Page, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_a_spike(sqlite_engine)
    found = problems(page)
    with serving(sqlite_engine) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        with dashboard(str(sqlite_engine.url)) as served:
            page.goto(f"{served.url}/run?run=asking")
            drawn(page)
            expect(page).to_have_title("(1) Run gpt-small / asking - Lossguard")
            row = page.get_by_role("button", name="#1 divergence")
            row.click()
            page.wait_for_url("**incident=1")
            details = page.get_by_text("Onset at step 6")
            expect(details).to_be_visible()
            row.press("Enter")
            page.wait_for_url(lambda address: "incident=" not in address)
            expect(details).to_have_count(0)  # the curves are back in their place
            name = page.locator(".lossguard-figure g.textpoint").filter(has_text="#1").first
            name.scroll_into_view_if_needed()
            number = box_of(name)
            page.mouse.click(number["x"] + number["width"] / 2, number["y"] + number["height"] / 2)
            page.wait_for_url("**/incident?run=asking&incident=1")
            page.go_back()
            page.get_by_role("button", name="Approve").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("To confirm, type").fill("approve")
            wait_for_refreshes(page, 4)  # of the dialog, too
            dialog.get_by_role("button", name="Approve", exact=True).click()
            expect(page.get_by_text("Intervention 1 approved.")).to_be_visible()
            expect(page).to_have_title("Run gpt-small / asking - Lossguard")
            expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    with reading(sqlite_engine) as session:
        assert access.trail(session)[0].action == "approve"
    assert not [text for text in found if "disconnected" not in text and "Failed to load" not in text]


def test_an_open_dialog_offers_nothing_once_somebody_else_has_decided(
    page: Page, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_a_spike(sqlite_engine)
    with serving(sqlite_engine) as url, Client(url) as client:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        with dashboard(str(sqlite_engine.url)) as served:
            page.goto(f"{served.url}/incident?run=asking&approve=1")
            dialog = page.get_by_role("dialog")
            expect(dialog.get_by_label("To confirm, type")).to_be_visible()
            (proposal,) = client.get("/runs/asking")["interventions"]
            client.request("POST", f"/interventions/{proposal['id']}/reject", {})
            expect(dialog.get_by_text("no longer waits for a decision: it was rejected")).to_be_visible()
            expect(dialog.get_by_label("To confirm, type")).to_have_count(0)
            dialog.get_by_role("button", name="Close").last.click()
            expect(dialog).to_have_count(0)


def test_the_page_says_what_does_not_answer_and_no_longer_when_it_does(
    page: Page, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(sqlite_engine, now=time.time())
    collector_port, port = free_port(), free_port()
    monkeypatch.setenv("LOSSGUARD_URL", f"http://127.0.0.1:{collector_port}")
    banner = page.get_by_text(re.compile("The collector at .* has not answered since"))
    notice = page.get_by_text("The dashboard has not answered since")
    with (
        page.expect_console_message(lambda line: "Are you connected" in line.text, timeout=120_000),
        dashboard(str(sqlite_engine.url), port) as served,
    ):
        page.goto(f"{served.url}/run?run=spiky-1")
        expect(banner).to_be_visible()
        with serving(sqlite_engine, port=collector_port):
            expect(banner).to_have_count(0)
        expect(banner).to_be_visible()
    expect(notice).to_be_visible()
    expect(page.get_by_text("Connecting")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_have_count(0)  # Streamlit's own, which would have asked that
    with dashboard(str(sqlite_engine.url), port):
        expect(notice).to_have_count(0)
