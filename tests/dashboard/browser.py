"""The system's Chromium, for tests and measurements of a dashboard process in a real browser.

Needs the package playwright and the program chromium (`make system`).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, FloatRect, Locator, Page, expect, sync_playwright

from tests.dashboard.serving import ROOT as ROOT
from tests.dashboard.serving import Served as Served
from tests.dashboard.serving import dashboard as dashboard
from tests.waiting import wait_for

WAIT_MS = 60_000
"""How long a busy machine may take for what a page shows at last; Playwright's own limit is 5 s."""
expect.set_options(timeout=WAIT_MS)

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
FIGURE = ".lossguard-figure"
SETTLED = '[data-testid=stApp][data-test-script-state="notRunning"]'
DRAWN = f"document.querySelector('{FIGURE}')?.dataset.drawn"


REFRESHES = """count => new Promise(done => {
    const app = document.querySelector('[data-testid=stApp]');
    const observer = new MutationObserver(() => {
        if (app.dataset.testScriptState === 'notRunning' && --count <= 0) {
            observer.disconnect();
            done();
        }
    });
    observer.observe(app, {attributes: true, attributeFilter: ['data-test-script-state']});
})"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def drawn(page: Page, *, other_than: str | None = None, seconds: float = 60) -> str:
    """Wait until the page's first figure is drawn, and is not `other_than`; its name."""
    page.wait_for_function(f"old => {DRAWN} && {DRAWN} !== old", arg=other_than, timeout=1000 * seconds)
    name: str = page.evaluate(DRAWN)
    return name


def box_of(locator: Locator) -> FloatRect:
    """Where an element lies, once it stays there: what is drawn above it later would move it away from the mouse."""

    def settled() -> FloatRect | None:
        before = locator.bounding_box()
        locator.page.wait_for_timeout(300)
        return before if before == locator.bounding_box() else None

    return wait_for(settled, seconds=60, what="the place of an element")


def click(page: Page, name: str, *, exact: bool = False) -> None:
    """Click the button of that name once the page is drawn: until then an old one may stand beside the new one."""
    page.wait_for_selector(SETTLED)
    button = page.get_by_role("button", name=name, exact=exact)
    expect(button).to_have_count(1)
    button.click()


def click_on(element: Locator) -> None:
    """Click an element once the page is drawn and it stays in its place: a click on what is drawn anew is lost."""
    element.page.wait_for_selector(SETTLED)
    box_of(element)
    element.click()


def open_dialog(page: Page, name: str, *, exact: bool = False) -> Locator:
    """Click the button of that name and wait until the dialog is drawn: a rerun may open it anew, with empty fields."""
    click(page, name, exact=exact)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.wait_for_selector(SETTLED)
    return dialog


def wait_for_refreshes(page: Page, count: int = 3) -> None:
    """Wait until the server has rerun parts of the page `count` times.

    Of three reruns of a live Run page at least two are of its upper part, which is refreshed more often.
    """
    page.evaluate(REFRESHES, count)


class MainThread:
    """The CPU time of a page's main thread, which does not depend on the load of the machine."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_ms(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return next(1000 * float(each["value"]) for each in metrics if each["name"] == "TaskDuration")
