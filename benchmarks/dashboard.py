"""The dashboard in a real browser, on a run of a million steps.

    python -m benchmarks.dashboard [--steps 1000000] [--store FILE] [--peers] [--zooms 190]

The store (kept if --store names a file) holds one finished run with a rollback, five metrics, a held-out loss, and 20
injected spikes of one step each. Measured in the system's Chromium on the Run page, and on the Compare page with the
live line and both segments overlaid: the time from navigation to the drawn chart, and from the end of a gesture to the
chart at its new resolution; medians. The comparison column has the CPU time of the page's main thread and of the
dashboard, which other load hardly changes, and the machine's load. --peers measures the same loss in TensorBoard and
trackio (benchmarks/dashboard_peers.py). --zooms counts the zooms that end on coarse data, of so many on each page.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, ViewportSize

from benchmarks import dashboard_peers
from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.steps import writer
from db.steps.columns import MetricColumn
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import RunState, SegmentReason
from tests.dashboard.browser import DRAWN, FIGURE, MainThread, Served, chromium, dashboard, drawn
from tests.db.seed import add_run

NUM_STEPS, NUM_SPIKES, CHUNK_STEPS, NUM_REPEATS = 1_000_000, 20, 20_000, 5
SPIKE_LOSS = 25.0
"""Loss of an injected spike, far above that of all other steps."""
HELD_OUT_INTERVAL = 100
"""Steps between two held-out losses."""
VIEWPORT: ViewportSize = {"width": 1440, "height": 900}
SETTLED_MS = 2500
"""After this time every answer to a gesture is here."""
TARGET_VIEW_MS, TARGET_INTERACTION_MS = 1000.0, 300.0


@dataclass(frozen=True, slots=True)
class View:
    """A page that is measured."""

    name: str
    path: str
    line: str
    """The page's name of the live line, which contains all spikes."""


VIEWS = (
    View("run of {steps:,} steps", "/run?run=long", "live line"),
    View("{steps:,} steps and both segments compared", "/compare?runs=long,long:0,long:1", "long"),
)


def spikes(steps: int) -> list[int]:
    return [int(step) for step in np.linspace(steps // 50, steps - 7, NUM_SPIKES)]


def fill(engine: sa.Engine, steps: int) -> None:
    """Store the run "long", unless it exists."""
    with reading(engine) as session:
        if queries.run_named(session, run_id="long") is not None:
            return
    with writing(engine) as session:
        config = {"num_parameters": 124_000_000}
        run = add_run(session, "long", total_steps=steps, config=config, started_at=time.time() - steps)
        start = run.started_at
    fork = steps // 2
    _segment(engine, start, "a", 0, fork + steps // 100, SegmentReason.START, steps)
    _segment(engine, start, "b", fork, steps, SegmentReason.ROLLBACK, steps)
    with writing(engine) as session:
        named = queries.run_named(session, run_id="long")
        assert named is not None
        commands.finish_run(session, run=named, state=RunState.FINISHED, at=start + steps, now=start + steps)


def _segment(
    engine: sa.Engine, start: float, key: str, first: int, last: int, reason: SegmentReason, steps: int
) -> None:
    with writing(engine) as session:
        run = queries.run_named(session, run_id="long")
        assert run is not None
        segment = commands.open_segment(
            session, run=run, key=key, fork_step=first, reason=reason, order_id=None, opened_at=start + first
        )[0].number
    noise = np.random.default_rng(first)
    for low in range(first, last, CHUNK_STEPS):
        rows = np.arange(low, min(low + CHUNK_STEPS, last))
        with writing(engine) as session:
            run = queries.run_named(session, run_id="long")
            assert run is not None
            writer.insert_steps(
                session,
                run=run,
                segment=segment,
                steps=rows.tolist(),
                times=(start + rows).tolist(),
                metrics=_metrics(rows, noise, steps),
            )
            commands.grow_segment(queries.segments(session, run=run)[segment], steps=rows.tolist())


def _metrics(rows: np.ndarray, noise: np.random.Generator, steps: int) -> dict[str, MetricColumn]:
    loss = _loss(rows, noise, steps)
    columns = {
        "loss": loss,
        "grad_norm": np.exp(noise.normal(-0.7, 0.1, len(rows))),
        "log_z": 1 + noise.normal(0, 0.01, len(rows)),
        "lr": 3e-4 * np.cos(rows / steps),
        "tokens": (rows + 1) * 500_000.0,
    }
    held_out = [
        float(value) if step % HELD_OUT_INTERVAL == 0 else None for step, value in zip(rows + 1, loss, strict=True)
    ]
    return {name: MetricColumn.of(column.tolist()) for name, column in columns.items()} | {
        "held_out_loss": MetricColumn.of(held_out)
    }


def _loss(rows: np.ndarray, noise: np.random.Generator, steps: int) -> np.ndarray:
    loss: np.ndarray = 2.5 + 8 / np.sqrt(1 + rows / 100) + noise.normal(0, 0.03, len(rows))
    loss[np.isin(rows, spikes(steps))] = SPIKE_LOSS
    return loss


def measure(steps: int, store: Path, *, peers: bool, zooms: int) -> Iterator[Row]:
    engine = create_engine(f"sqlite:///{store}")
    migrate.upgrade(engine)
    fill(engine, steps)
    engine.dispose()
    with chromium() as browser:
        with dashboard(f"sqlite:///{store}") as served:
            for view in VIEWS:
                yield from _views(browser, served, view, steps)
                yield from _gestures(browser, served, view, steps)
                if zooms:
                    yield _coarse_zooms(browser, served, view, steps, zooms)
        if peers:
            losses = _loss(np.arange(steps), np.random.default_rng(0), steps)
            yield from dashboard_peers.measure(browser, losses.tolist(), SPIKE_LOSS)


@dataclass(frozen=True, slots=True)
class Duration:
    """Milliseconds until the chart was drawn."""

    wall: float
    page: float
    """CPU time of the page's main thread."""
    server: float
    """CPU time of the dashboard."""


def _row(name: str, took: Sequence[Duration], target: float | None) -> Row:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    page, server = (statistics.median(column) for column in zip(*((one.page, one.server) for one in took), strict=True))
    comparison = f"CPU time: page {page:.0f} ms, server {server:.0f} ms; {load}"
    return Row(name, statistics.median(one.wall for one in took), "ms", target, comparison)


def _views(browser: Browser, served: Served, view: View, steps: int) -> Iterator[Row]:
    """The curves of the first viewer are read from the store, those of the next ones from the dashboard's cache."""
    label = f"{view.name.format(steps=steps)}: navigation to drawn chart"
    took = []
    with closing(browser.new_context(viewport=VIEWPORT)) as context:
        for _ in range(1 + NUM_REPEATS):
            with closing(context.new_page()) as page:
                took.append(_timed(page, served, lambda page: _go(page, served, view)))
    yield _row(f"{label}, first viewer, empty browser cache", took[:1], None)
    yield _row(f"{label}, warm browser cache", took[1:], TARGET_VIEW_MS)


def _go(page: Page, served: Served, view: View) -> float:
    began = time.perf_counter()
    page.goto(served.url + view.path, wait_until="commit")
    return began


def _gestures(browser: Browser, served: Served, view: View, steps: int) -> Iterator[Row]:
    page, label = browser.new_page(viewport=VIEWPORT), view.name.format(steps=steps)
    _go(page, served, view)
    drawn(page)
    hidden = NUM_SPIKES - _shown(page, view, steps)
    yield Row(f"{label}: one-step spikes missing from the chart, of {NUM_SPIKES}", hidden, "", 0, "")
    took: dict[str, list[Duration]] = {"zoom by dragging": [], "double click to the whole run": [], "smoothing": []}
    for turn in range(NUM_REPEATS):
        for name, gesture in zip(took, (_zoomer(turn), _back, _smoother(turn)), strict=True):
            page.wait_for_timeout(600)  # two clicks within half a second would be a double click
            took[name].append(_timed(page, served, gesture))
    for name, taken in took.items():
        yield _row(f"{label}: {name}, to the new chart", taken, TARGET_INTERACTION_MS)


def _coarse_zooms(browser: Browser, served: Served, view: View, steps: int, zooms: int) -> Row:
    """A refresh that crosses a zoom on its way must not bring the buckets of the whole run back."""
    page = browser.new_page(viewport=VIEWPORT)
    _go(page, served, view)
    drawn(page)
    whole, coarse = _bucket_steps(page, view), 0
    for turn in range(zooms):
        page.wait_for_timeout(600 + 37 * (turn % 20))
        _zoomer(turn % 5)(page)
        page.wait_for_timeout(SETTLED_MS)
        coarse += _bucket_steps(page, view) > whole / 2
        _back(page)
    return Row(f"{view.name.format(steps=steps)}: zooms that end on coarse data, of {zooms}", coarse, "", 0, "")


def _bucket_steps(page: Page, view: View) -> float:
    """Mean number of steps in a bucket of the chart."""
    line = f"document.querySelector('{FIGURE}')._fullData.find(trace => trace.legendgroup === '{view.line}')"
    steps: float = page.evaluate(f"(line => (line.x.at(-1) - line.x[0]) / (line.x.length - 1))({line})")
    return steps


def _timed(page: Page, served: Served, gesture: Callable[[Page], float]) -> Duration:
    """Time from the gesture (from the end of a drag) to the next drawing."""
    before, thread = page.evaluate(DRAWN), MainThread(page)
    used = thread.cpu_ms(), served.cpu_ms()
    began = gesture(page)
    drawn(page, other_than=before)
    wall = 1000 * (time.perf_counter() - began)
    return Duration(wall, thread.cpu_ms() - used[0], served.cpu_ms() - used[1])


def _zoomer(turn: int) -> Callable[[Page], float]:
    """A different range in each turn, so that the dashboard has to read it."""

    def zoom(page: Page) -> float:
        """Drag; the time at which the mouse button was released."""
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
    """Show the whole run again; the time of the double click."""
    box = page.locator(f"{FIGURE} .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    return time.perf_counter()


def _smoother(turn: int) -> Callable[[Page], float]:
    def choose(page: Page) -> float:
        page.locator(".st-key-smooth input").first.click()
        page.get_by_role("option").nth(1 + turn).click()
        return time.perf_counter()

    return choose


def _shown(page: Page, view: View, steps: int) -> int:
    """Number of spikes that the chart's envelope reaches at their step."""
    reached = page.evaluate(
        f"""() => document.querySelector('{FIGURE}')._fullData
            .filter(trace => trace.yaxis === 'y' && trace.fill === 'tonexty' && trace.legendgroup === '{view.line}')
            .flatMap(trace => Array.from(trace.x, (x, at) => [x, trace.y[at]]))"""
    )
    starts = sorted((x, y) for x, y in reached)
    return sum(_reaches(starts, spike) for spike in spikes(steps))


def _reaches(points: list[tuple[float, float]], spike: int) -> bool:
    before = [y for x, y in points if x <= spike]
    return bool(before) and before[-1] >= SPIKE_LOSS - 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--store", type=Path, help="SQLite file to keep the run in")
    parser.add_argument("--peers", action="store_true", help="also measure TensorBoard and trackio")
    parser.add_argument("--zooms", type=int, default=0, help="also count zooms that end on coarse data, of so many")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or Path(folder) / "store.db"
        print_rows(measure(arguments.steps, store, peers=arguments.peers, zooms=arguments.zooms))


if __name__ == "__main__":
    main()
