"""The dashboard in a real browser, on a run of a million steps.

    python -m benchmarks.dashboard [--steps 1000000] [--store FILE] [--peers]

The store (kept when --store names a file) holds one finished run with a rollback in it, five metrics and a held-out
loss, and 20 planted spikes of one step each. Measured in the system's Chromium on the Run page, and on the Compare page
with its live line and both segments over each other: from the navigation to the drawn chart, and from the end of a
gesture to the chart at its new resolution; medians. Beside it stand the CPU time of the page's main thread and of the
dashboard, which other load does not change, and the machine's load. --peers shows the same loss in TensorBoard and in
trackio (benchmarks/dashboard_peers.py).
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
from db.engine import create_engine, reading, writing
from db.steps import writer
from db.steps.columns import MetricColumn
from lossguard.states import RunState, SegmentReason
from tests.dashboard.browser import DRAWN, FIGURE, MainThread, Served, chromium, dashboard, drawn
from tests.db.seed import add_run

STEPS, SPIKES, CHUNK, TIMES = 1_000_000, 20, 20_000, 5
HEIGHT = 25.0
"""Loss of a planted spike; no other step comes near."""
EVALUATED = 100
"""Steps between two held-out losses."""
SIZE: ViewportSize = {"width": 1440, "height": 900}
FIRST_VIEW_MS, INTERACTION_MS = 1000.0, 300.0


@dataclass(frozen=True, slots=True)
class View:
    """A page that is measured."""

    name: str
    path: str
    line: str
    """What it calls the live line, which holds all spikes."""


VIEWS = (
    View("run of {steps:,} steps", "/run?run=long", "live line"),
    View("{steps:,} steps and both segments compared", "/compare?runs=long,long:0,long:1", "long"),
)


def spikes(steps: int) -> list[int]:
    return [int(step) for step in np.linspace(steps // 50, steps - 7, SPIKES)]


def fill(engine: sa.Engine, steps: int) -> None:
    """The run "long", unless it is there."""
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
    for low in range(first, last, CHUNK):
        rows = np.arange(low, min(low + CHUNK, last))
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
    held_out = [float(value) if step % EVALUATED == 0 else None for step, value in zip(rows + 1, loss, strict=True)]
    return {name: MetricColumn.of(column.tolist()) for name, column in columns.items()} | {
        "held_out_loss": MetricColumn.of(held_out)
    }


def _loss(rows: np.ndarray, noise: np.random.Generator, steps: int) -> np.ndarray:
    loss: np.ndarray = 2.5 + 8 / np.sqrt(1 + rows / 100) + noise.normal(0, 0.03, len(rows))
    loss[np.isin(rows, spikes(steps))] = HEIGHT
    return loss


def measure(steps: int, store: Path, *, peers: bool) -> Iterator[Row]:
    engine = create_engine(f"sqlite:///{store}")
    migrate.upgrade(engine)
    fill(engine, steps)
    engine.dispose()
    with chromium() as browser:
        with dashboard(f"sqlite:///{store}") as served:
            for view in VIEWS:
                yield from _views(browser, served, view, steps)
                yield from _gestures(browser, served, view, steps)
        if peers:
            losses = _loss(np.arange(steps), np.random.default_rng(0), steps)
            yield from dashboard_peers.measure(browser, losses.tolist(), HEIGHT)


@dataclass(frozen=True, slots=True)
class Took:
    """What something took until the chart was drawn, in milliseconds."""

    wall: float
    page: float
    """CPU time of the page's main thread."""
    server: float
    """CPU time of the dashboard."""


def _row(name: str, took: Sequence[Took], target: float | None) -> Row:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    page, server = (statistics.median(column) for column in zip(*((one.page, one.server) for one in took), strict=True))
    beside = f"CPU time: page {page:.0f} ms, server {server:.0f} ms; {load}"
    return Row(name, statistics.median(one.wall for one in took), "ms", target, beside)


def _views(browser: Browser, served: Served, view: View, steps: int) -> Iterator[Row]:
    """The first viewer's curves are read from the store; the next ones' are in the dashboard's memory."""
    label = f"{view.name.format(steps=steps)}: navigation to drawn chart"
    took = []
    with closing(browser.new_context(viewport=SIZE)) as context:
        for _ in range(1 + TIMES):
            with closing(context.new_page()) as page:
                took.append(_timed(page, served, lambda page: _go(page, served, view)))
    yield _row(f"{label}, the first viewer, empty browser cache", took[:1], None)
    yield _row(f"{label}, known browser", took[1:], FIRST_VIEW_MS)


def _go(page: Page, served: Served, view: View) -> float:
    began = time.perf_counter()
    page.goto(served.url + view.path, wait_until="commit")
    return began


def _gestures(browser: Browser, served: Served, view: View, steps: int) -> Iterator[Row]:
    page, label = browser.new_page(viewport=SIZE), view.name.format(steps=steps)
    _go(page, served, view)
    drawn(page)
    hidden = SPIKES - _shown(page, view, steps)
    yield Row(f"{label}: planted spikes of one step that the chart hides, of {SPIKES}", hidden, "", 0, "")
    took: dict[str, list[Took]] = {"zoom by dragging": [], "double click back to what was seen": [], "smoothing": []}
    for turn in range(TIMES):
        for name, gesture in zip(took, (_zoomer(turn), _back, _smoother(turn)), strict=True):
            page.wait_for_timeout(600)  # two clicks within half a second would be a double click
            took[name].append(_timed(page, served, gesture))
    for name, taken in took.items():
        yield _row(f"{label}: {name}, to the new chart", taken, INTERACTION_MS)


def _timed(page: Page, served: Served, gesture: Callable[[Page], float]) -> Took:
    """From the gesture (of a drag, from its end) to the next drawing."""
    before, thread = page.evaluate(DRAWN), MainThread(page)
    used = thread.cpu_ms(), served.cpu_ms()
    began = gesture(page)
    drawn(page, other_than=before)
    wall = 1000 * (time.perf_counter() - began)
    return Took(wall, thread.cpu_ms() - used[0], served.cpu_ms() - used[1])


def _zoomer(turn: int) -> Callable[[Page], float]:
    """Another range in each turn, which the dashboard has to read."""

    def zoom(page: Page) -> float:
        """When the mouse is let go."""
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
    """The whole run again."""
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
    """Spikes that the chart's envelope reaches, where they are."""
    reached = page.evaluate(
        f"""() => document.querySelector('{FIGURE}')._fullData
            .filter(trace => trace.yaxis === 'y' && trace.fill === 'tonexty' && trace.legendgroup === '{view.line}')
            .flatMap(trace => Array.from(trace.x, (x, at) => [x, trace.y[at]]))"""
    )
    starts = sorted((x, y) for x, y in reached)
    return sum(_reaches(starts, spike) for spike in spikes(steps))


def _reaches(points: list[tuple[float, float]], spike: int) -> bool:
    before = [y for x, y in points if x <= spike]
    return bool(before) and before[-1] >= HEIGHT - 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--store", type=Path, help="SQLite file to keep the run in")
    parser.add_argument("--peers", action="store_true", help="TensorBoard and trackio beside it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or Path(folder) / "store.db"
        print_rows(measure(arguments.steps, store, peers=arguments.peers))


if __name__ == "__main__":
    main()
