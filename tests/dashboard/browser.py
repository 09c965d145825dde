"""The system's Chromium and a dashboard process, for tests and measurements in a real browser.

Needs the package playwright and the program chromium (`make system`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3
from playwright.sync_api import Browser, Page, sync_playwright

from tests.ports import free_port
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
FIGURE = ".lossguard-figure"
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


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    process: int
    """Its id."""

    def cpu_ms(self) -> float:
        """What the process has used so far (Linux)."""
        user, system = Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return 1000 * (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def dashboard(database: str, port: int | None = None) -> Iterator[Served]:
    """A dashboard process of its own."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dashboard", "--port", str(port), "--database", database]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(f"{url}/_stcore/health", process)
        yield Served(url, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_up(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    http = urllib3.PoolManager(retries=False, timeout=2)
    eventually(lambda: process.poll() is not None or _answers(http, url), seconds, interval=0.1)
    if not _answers(http, url):
        raise RuntimeError(f"nothing answers on {url} (exit code {process.poll()})")


def _answers(http: urllib3.PoolManager, url: str) -> bool:
    try:
        return http.request("GET", url).status < 500
    except urllib3.exceptions.HTTPError:
        return False


def drawn(page: Page, *, other_than: str | None = None, seconds: float = 60) -> str:
    """Wait until the page's first figure is drawn, and is not `other_than`; its name."""
    page.wait_for_function(f"old => {DRAWN} && {DRAWN} !== old", arg=other_than, timeout=1000 * seconds)
    name: str = page.evaluate(DRAWN)
    return name


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
