"""The system's Chromium draws the figures of hostile runs: plotly.js has limits of its own, and no error is shown."""

import pytest
import sqlalchemy as sa

pytest.importorskip("playwright", reason="the package playwright is not installed")
from playwright.sync_api import ConsoleMessage, Error

from tests.dashboard.browser import FIGURE, chromium, dashboard, drawn
from tests.dashboard.hostile_runs import BY_ID

pytestmark = [pytest.mark.slow(10), pytest.mark.needs("chromium")]

TICKS = f"[...document.querySelectorAll('{FIGURE} .ytick text')].map(each => each.textContent)"
MAX_TICK_LETTERS = 10
"""As many as there is room for."""
PAGES = (
    ("run", "denormal"),
    ("run", "huge-and-negative"),
    ("run", "nothing-reported"),
    ("incident", "first-nan"),
    ("incident", "late-steps"),
    ("next-token", "probes"),
)


def test_a_browser_draws_every_kind_of_page_about_hostile_runs_without_an_error(sqlite_engine: sa.Engine) -> None:
    for name in {run_id for _, run_id in PAGES}:
        BY_ID[name].report(sqlite_engine)
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def note_exception(error: Error) -> None:
        errors.append(str(error))

    with dashboard(str(sqlite_engine.url)) as served, chromium() as browser:
        for path, run_id in PAGES:
            page = browser.new_page(viewport={"width": 1200, "height": 1500})
            page.on("console", note)
            page.on("pageerror", note_exception)
            page.goto(f"{served.url}/{path}?run={run_id}")
            drawn(page)
            assert errors == [], f"{path} of {run_id}"
            ticks = page.evaluate(TICKS)
            assert (ticks == []) is (run_id == "nothing-reported")
            long_ticks = [text for text in ticks if text in ("NaN", "Infinity") or len(text) > MAX_TICK_LETTERS]
            assert long_ticks == [] or path == "next-token"  # its bars have the tokens beside them
            page.close()
