"""The dashboard in a real browser: the first chart and a zoom of a run of a million steps, and the list of runs.

    python -m benchmarks.dashboard [--steps 1000000]
    python -m benchmarks.dashboard --list [--runs 10 100 1000 10000]

The run has a rollback, five metrics, a held-out loss, and 20 injected spikes of one step each. Measured in the system's
Chromium on the Run page, and on the Compare page with the live line and both segments overlaid: from navigation to the
drawn chart, and from the end of a gesture to the chart at its new resolution; medians. The comparison column has the
CPU time of the page's main thread and of the dashboard, which other load hardly changes.

Of the list: from the request until the first run is on the screen, from Enter to the only run that a search finds, and
the CPU time that an open page costs the dashboard in a minute.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from playwright.sync_api import Browser, Page, ViewportSize

from benchmarks.harness import SQLITE, Row, load, median_of, place, print_rows
from benchmarks.sizing import idle_ms
from benchmarks.stored_runs import SPIKE_LOSS, spikes, write_long, write_many
from db.store.engine import create_engine
from tests.dashboard.browser import DRAWN, FIGURE, MainThread, Served, chromium, dashboard, drawn

NUM_STEPS, NUM_REPEATS, LIST_STEPS = 1_000_000, 5, 100
METRICS = ("loss", "grad_norm", "log_z", "lr", "tokens", "held_out_loss")
VIEWPORT: ViewportSize = {"width": 1440, "height": 900}
TARGET_VIEW_MS, TARGET_INTERACTION_MS = 1000.0, 300.0
VIEWS = {
    "run of {:,} steps": ("/run?run=long", "live line"),
    "{:,} steps and both segments compared": ("/compare?runs=long,long:0,long:1", "long"),
}
"""Pages that are measured: path, and the page's name of the live line, which contains all spikes."""
FIRST_RUN = "() => ['.stPageLink a', 'dd'].every(part => document.querySelector(`[class*=st-key-card-] ${part}`))"
ONE_RUN = "() => document.querySelectorAll('[class*=st-key-card-]').length === 1"
SEARCHES = {
    "a name": '"sweep 7" id=run-000007',
    "a setting": "id=run-000007 lr=0.01",
    "a metric": "id=run-000007 loss<100",
}


def charts(steps: int) -> Iterator[Row]:
    with place(SQLITE) as where, where.new_store() as url, chromium() as browser:
        engine = create_engine(url)
        write_long(engine, "long", steps, METRICS)
        engine.dispose()
        with dashboard(url) as served:
            for label, (path, line) in VIEWS.items():
                yield from _views(browser, served, label.format(steps), path)
                yield from _gestures(browser, served, label.format(steps), path, line, steps)


@dataclass(frozen=True, slots=True)
class Duration:
    """Milliseconds until the chart was drawn, and CPU time of the page's main thread and of the dashboard."""

    wall: float
    page: float
    server: float


def _row(name: str, took: Sequence[Duration], target: float | None) -> Row:
    page, server = statistics.median(one.page for one in took), statistics.median(one.server for one in took)
    comparison = f"CPU time: page {page:.0f} ms, server {server:.0f} ms; {load()}"
    return Row(name, statistics.median(one.wall for one in took), "ms", target, comparison)


def _views(browser: Browser, served: Served, label: str, path: str) -> Iterator[Row]:
    """The curves of the first viewer are read from the store, those of the next ones from the dashboard's cache."""
    took = []
    with closing(browser.new_context(viewport=VIEWPORT)) as context:
        for _ in range(1 + NUM_REPEATS):
            with closing(context.new_page()) as page:
                took.append(_timed(page, served, lambda page: _go(page, served.url + path)))
    yield _row(f"{label}: navigation to drawn chart, first viewer, empty browser cache", took[:1], None)
    yield _row(f"{label}: navigation to drawn chart, warm browser cache", took[1:], TARGET_VIEW_MS)


def _go(page: Page, url: str) -> float:
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    return began


def _gestures(browser: Browser, served: Served, label: str, path: str, line: str, steps: int) -> Iterator[Row]:
    page = browser.new_page(viewport=VIEWPORT)
    _go(page, served.url + path)
    drawn(page)
    hidden = len(spikes(steps)) - _shown(page, line, steps)
    yield Row(f"{label}: one-step spikes missing from the chart, of {len(spikes(steps))}", hidden, "", 0)
    took: dict[str, list[Duration]] = {"zoom by dragging": [], "double click to the whole run": []}
    for turn in range(NUM_REPEATS):
        for name, gesture in zip(took, (_zoomer(turn), _back), strict=True):
            page.wait_for_timeout(600)  # two clicks within half a second would be a double click
            took[name].append(_timed(page, served, gesture))
    for name, taken in took.items():
        yield _row(f"{label}: {name}, to the new chart", taken, TARGET_INTERACTION_MS)


def _timed(page: Page, served: Served, gesture: Callable[[Page], float]) -> Duration:
    """Time from the moment that the gesture returns to the next drawing."""
    before, thread = page.evaluate(DRAWN), MainThread(page)
    used = thread.cpu_ms(), served.cpu_ms()
    began = gesture(page)
    drawn(page, other_than=before)
    wall = 1000 * (time.perf_counter() - began)
    return Duration(wall, thread.cpu_ms() - used[0], served.cpu_ms() - used[1])


def _zoomer(turn: int) -> Callable[[Page], float]:
    """A different range in each turn, so that the dashboard has to read it."""

    def zoom(page: Page) -> float:
        """Drag, and return the time at which the mouse button was released."""
        box = page.locator(f"{FIGURE} .nsewdrag").first.bounding_box()
        assert box is not None
        y, left = box["y"] + box["height"] / 2, box["x"] + 0.05 * turn * box["width"]
        page.mouse.move(left + 0.4 * box["width"], y)
        page.mouse.down()
        page.mouse.move(left + 0.5 * box["width"], y, steps=4)
        page.mouse.move(left + 0.6 * box["width"], y, steps=4)
        began = time.perf_counter()
        page.mouse.up()
        return began

    return zoom


def _back(page: Page) -> float:
    """Show the whole run again, and return the time of the double click."""
    page.locator(f"{FIGURE} .nsewdrag").first.dblclick()
    return time.perf_counter()


def _shown(page: Page, line: str, steps: int) -> int:
    """Number of spikes that the chart's envelope reaches at their step."""
    points: list[tuple[float, float]] = page.evaluate(
        f"""() => document.querySelector('{FIGURE}')._fullData
            .filter(trace => trace.yaxis === 'y' && trace.fill === 'tonexty' && trace.legendgroup === '{line}')
            .flatMap(trace => Array.from(trace.x, (x, at) => [x, trace.y[at]]))"""
    )
    reached = [max((point for point in points if point[0] <= spike), default=(0, 0)) for spike in spikes(steps)]
    return sum(y >= SPIKE_LOSS - 0.01 for _, y in reached)


def run_list(counts: Sequence[int]) -> Iterator[Row]:
    for count in counts:
        with place(SQLITE) as where, where.new_store() as url, chromium() as browser:
            engine = create_engine(url)
            write_many(engine, count, steps=LIST_STEPS)
            engine.dispose()
            with dashboard(url) as served:
                page, label = browser.new_page(viewport=VIEWPORT), f"list of {count:,} runs"

                def view(page: Page = page, url: str = served.url) -> None:
                    page.goto("about:blank")
                    page.goto(url, wait_until="commit")
                    page.wait_for_function(FIRST_RUN, timeout=120_000)

                view()  # fills the caches
                used = served.cpu_ms()
                took = 1000 * median_of(view, NUM_REPEATS)
                each = f"{(served.cpu_ms() - used) / NUM_REPEATS:.0f} ms of CPU time each; {load()}"
                yield Row(f"{label}: first run on the screen", took, "ms", TARGET_VIEW_MS, each)
                yield Row(f"{label}: an open page, CPU time in a minute", idle_ms(served), "ms", None, load())
                for what, text in SEARCHES.items():
                    took = statistics.median(_search(page, text) for _ in range(NUM_REPEATS))
                    yield Row(f"{label}: search for {what}", took, "ms", TARGET_INTERACTION_MS, load())


def _search(page: Page, text: str) -> float:
    """Milliseconds from Enter to the one run found; the search is emptied again."""
    box = page.get_by_role("textbox", name="Search")
    box.fill(text)
    began = time.perf_counter()
    box.press("Enter")
    page.wait_for_function(ONE_RUN, timeout=60_000)
    took = 1000 * (time.perf_counter() - began)
    box.fill("")
    box.press("Enter")
    page.wait_for_function(f"() => !({ONE_RUN})()", timeout=60_000)
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--list", action="store_true", help="measure the list of runs")
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10_000], help="lengths of the list")
    chosen = parser.parse_args()
    print_rows(run_list(chosen.runs) if chosen.list else charts(chosen.steps))
