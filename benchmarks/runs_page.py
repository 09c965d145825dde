"""The list of runs with many runs: the first run on the screen, a search, what an open page costs, what its reads cost.

    python -m benchmarks.runs_page [--runs 10 100 1000 10000] [--steps 100] [--layouts Cards Table] [--pages-only]

Page: Chromium and a dashboard process on this machine, medians of 5 views with a warm browser cache, from the request
until the browser has drawn the first run whole, by the browser's clock; beside them the first view of the process, and
the CPU time that the dashboard used for a view. The machine decides the seconds: the ratio to the smallest number of
runs says what a longer list costs. Search: from Enter to the only run that is found on the screen, by its name, by a
setting and by a metric. Idle: the CPU time of the dashboard for a minute of an open page. Reads: progress, two metrics
and a sparkline of 1,000 runs, in one session; the median of 5, as CPU time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from playwright.sync_api import Page

from benchmarks.rows import Row, print_rows
from benchmarks.stored_runs import fill
from db import migrate, queries
from db.store.engine import create_engine, reading
from tests.dashboard.browser import chromium, dashboard
from tests.dashboard.serving import Served

VIEWS = 5
IDLE_SECONDS = 20.0
NUM_READ = 1000
"""Runs of the reads at most."""
TARGET_SECONDS, SEARCH_SECONDS = 1.0, 0.3
HAS_RUN = {
    "Cards": "['.stPageLink a', 'dd'].every(part => document.querySelector(`[class*=st-key-card-] ${part}`))",
    "Table": "document.querySelector('[data-testid=stBidiComponentIsolated]')?.shadowRoot.querySelector('tbody tr')",
}
"""Whether the first run is on the page."""
NOTE_WHEN_DRAWN = """(() => {
    const look = () => {
        if (!(%s)) return requestAnimationFrame(look);
        const {port1, port2} = new MessageChannel();  // its message comes after this frame has been drawn
        port1.onmessage = () => { window.drawnAt = performance.timeOrigin + performance.now(); };
        port2.postMessage(null);
    };
    requestAnimationFrame(look);
})()"""
FOUND = {
    "Cards": "document.querySelectorAll('[class*=st-key-card-]').length === {}",
    "Table": "document.querySelector('[data-testid=stBidiComponentIsolated]')"
    "?.shadowRoot.querySelectorAll('tbody tr').length === {}",
}
"""Whether so many runs are on the screen."""
SEARCHES = {"a name": '"sweep 7" id=r7', "a setting": "id=r7 lr=0.001", "a metric": "id=r7 loss<100"}


def measure(counts: Sequence[int], steps: int, layouts: Sequence[str], pages_only: bool) -> Iterator[Row]:
    smallest: dict[str, float] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            engine = create_engine(f"sqlite:///{folder}/store.db")
            migrate.upgrade(engine)
            fill(engine, count, steps)
            if not pages_only:
                yield _row(f"reads of {min(count, NUM_READ):,} runs, CPU", _cpu_seconds(engine), smallest, "reads")
            for layout in layouts:
                yield from _page(str(engine.url), layout, count, smallest)
            engine.dispose()


def _row(
    name: str, value: float, smallest: dict[str, float], key: str, *, target: float | None = None, unit: str = "s",
    note: str = "",
) -> Row:  # fmt: skip
    ratio = value / smallest.setdefault(key, value)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return Row(name, value, unit, target, f"{note}{ratio:.2f} times the smallest; {load}")


def _read(engine: sa.Engine) -> None:
    from db.runs import overview

    with reading(engine) as session:
        found = overview.summaries(session, runs=queries.runs(session)[:NUM_READ], metrics=["loss", "grad_norm"])
    assert all(summary.metrics["loss"].sparkline for summary in found.values())


def _page(database: str, layout: str, count: int, smallest: dict[str, float]) -> Iterator[Row]:
    """Views, an idle page and searches of one layout, with `count` runs."""
    with dashboard(database) as served, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(NOTE_WHEN_DRAWN % HAS_RUN[layout])
        url, name = f"{served.url}/?layout={layout}", f"{layout}, {count:,} runs"
        first = _view(page, url)
        used = served.cpu_ms()
        seconds = [_view(page, url) for _ in range(VIEWS)]
        note = f"{first:.2f} s at first; {(served.cpu_ms() - used) / VIEWS:.0f} ms of CPU time each; "
        view = statistics.median(seconds)
        yield _row(name, view, smallest, layout, target=TARGET_SECONDS, note=note)
        yield _row(f"{name}, idle for a minute", idle_ms(served), smallest, f"{layout} idle", unit="ms of CPU time")
        for what, text in SEARCHES.items():
            median = statistics.median(_search(page, text, layout) for _ in range(VIEWS))
            yield _row(f"{name}, search for {what}", median, smallest, f"{layout} {what}", target=SEARCH_SECONDS)


def _view(page: Page, url: str) -> float:
    page.goto("about:blank")
    began = time.time()
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => window.drawnAt", timeout=120_000)
    drawn_at: float = page.evaluate("window.drawnAt")
    return drawn_at / 1000 - began


def idle_ms(served: Served) -> float:
    """Milliseconds of CPU time that an open page costs the dashboard in a minute, without its first seconds."""
    time.sleep(3.0)
    began = served.cpu_ms()
    time.sleep(IDLE_SECONDS)
    return (served.cpu_ms() - began) * 60.0 / IDLE_SECONDS


def _search(page: Page, text: str, layout: str) -> float:
    """Seconds from Enter to the one run found; the search is emptied again."""
    box, found = page.get_by_role("textbox", name="Search"), FOUND[layout].format(1)
    box.fill(text)
    began = time.perf_counter()
    box.press("Enter")
    page.wait_for_function(f"() => {found}", timeout=60_000)
    seconds = time.perf_counter() - began
    box.fill("")
    box.press("Enter")
    page.wait_for_function(f"() => !({found})", timeout=60_000)
    return seconds


def _cpu_seconds(engine: sa.Engine) -> float:
    seconds = []
    for _ in range(VIEWS):
        began = time.process_time()
        _read(engine)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--layouts", nargs="+", choices=list(HAS_RUN), default=list(HAS_RUN))
    parser.add_argument("--pages-only", action="store_true", help="leave out the reads")
    chosen = parser.parse_args()
    print_rows(measure(chosen.runs, chosen.steps, chosen.layouts, chosen.pages_only))
