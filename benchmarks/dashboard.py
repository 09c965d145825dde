"""The dashboard in a real browser, on a run of a million steps.

    python -m benchmarks.dashboard [--steps 1000000] [--store FILE]

The store (kept when --store names a file) holds one finished run with a rollback in it, five metrics and 20 planted
spikes of one step each. Measured in the system's Chromium: from the navigation to the drawn chart, and from the end of
a gesture to the chart at its new resolution; medians. The machine's load stands beside: the browser, the dashboard and
whatever else runs share its cores.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from playwright.sync_api import Browser, Page

from benchmarks.browser import FIGURE, chromium, dashboard, drawn
from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries, step_rows
from db.columns import Numbers
from db.engine import create_engine, reading, writing
from lossguard.protocol import RunState, SegmentReason
from tests.db.seed import add_run

STEPS, SPIKES, CHUNK, TIMES = 1_000_000, 20, 20_000, 5
HEIGHT = 25.0
"""Loss of a planted spike; no other step comes near."""
FIRST_VIEW_MS, INTERACTION_MS = 1000.0, 300.0


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
            step_rows.insert_steps(
                session,
                run=run,
                segment=segment,
                steps=rows.tolist(),
                times=(start + rows).tolist(),
                metrics=_metrics(rows, noise, steps),
            )
            commands.grow_segment(queries.segments(session, run=run)[segment], steps=rows.tolist())


def _metrics(rows: np.ndarray, noise: np.random.Generator, steps: int) -> dict[str, Numbers]:
    loss = 2.5 + 8 / np.sqrt(1 + rows / 100) + noise.normal(0, 0.03, len(rows))
    loss[np.isin(rows, spikes(steps))] = HEIGHT
    columns = {
        "loss": loss,
        "grad_norm": np.exp(noise.normal(-0.7, 0.1, len(rows))),
        "log_z": 1 + noise.normal(0, 0.01, len(rows)),
        "lr": 3e-4 * np.cos(rows / steps),
        "tokens": (rows + 1) * 500_000.0,
    }
    return {name: Numbers.of(column.tolist()) for name, column in columns.items()}


def measure(steps: int, store: Path) -> Iterator[Row]:
    engine = create_engine(f"sqlite:///{store}")
    migrate.upgrade(engine)
    fill(engine, steps)
    engine.dispose()
    with dashboard(f"sqlite:///{store}") as url, chromium() as browser:
        yield from _views(browser, f"{url}/run?run=long", steps)
        yield from _gestures(browser, f"{url}/run?run=long", steps)


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _views(browser: Browser, address: str, steps: int) -> Iterator[Row]:
    """The dashboard has just started: the first view reads the store; later ones find the curves in its memory."""
    label = f"run of {steps:,} steps"
    first = _view(browser, address)
    yield Row(f"{label}: navigation to drawn chart, the first viewer, empty browser cache", first, "ms", None, _load())
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    times = []
    for _ in range(1 + TIMES):
        page = context.new_page()
        times.append(_navigate(page, address))
        page.close()
    context.close()
    median = statistics.median(times[1:])
    yield Row(f"{label}: navigation to drawn chart, known browser", median, "ms", FIRST_VIEW_MS, _load())


def _view(browser: Browser, address: str) -> float:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        return _navigate(context.new_page(), address)
    finally:
        context.close()


def _navigate(page: Page, address: str) -> float:
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    drawn(page)
    return 1000 * (time.perf_counter() - began)


def _gestures(browser: Browser, address: str, steps: int) -> Iterator[Row]:
    page, label = browser.new_page(viewport={"width": 1440, "height": 900}), f"run of {steps:,} steps"
    page.goto(address)
    drawn(page)
    yield Row(f"planted spikes of one step that the chart hides, of {SPIKES}", SPIKES - _shown(page, steps), "", 0, "")
    times: dict[str, list[float]] = {"zoom by dragging": [], "double click back": [], "smoothing": []}
    for turn in range(TIMES):
        for name, gesture in zip(times, (_zoom, _back, _smoother(turn)), strict=True):
            times[name].append(_timed(page, gesture))
    for name, taken in times.items():
        yield Row(f"{label}: {name}, to the new chart", statistics.median(taken), "ms", INTERACTION_MS, _load())


def _timed(page: Page, gesture: Callable[[Page], None]) -> float:
    """From the end of the gesture."""
    page.wait_for_timeout(600)  # two clicks within half a second would be a double click
    before = drawn(page)
    gesture(page)
    began = time.perf_counter()
    drawn(page, other_than=before)
    return 1000 * (time.perf_counter() - began)


def _zoom(page: Page) -> None:
    box = page.locator(f"{FIGURE} .nsewdrag").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.4 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], y, steps=4)
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=4)
    page.mouse.up()


def _back(page: Page) -> None:
    """The whole run again."""
    box = page.locator(f"{FIGURE} .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def _smoother(turn: int) -> Callable[[Page], None]:
    def choose(page: Page) -> None:
        page.locator(".st-key-smooth input").first.click()
        page.get_by_role("option").nth(1 + turn).click()

    return choose


def _shown(page: Page, steps: int) -> int:
    """Spikes that the chart's envelope reaches, where they are."""
    reached = page.evaluate(
        f"""() => document.querySelector('{FIGURE}')._fullData
            .filter(trace => trace.yaxis === 'y' && trace.fill === 'tonexty')
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_rows(measure(arguments.steps, arguments.store or Path(folder) / "store.db"))


if __name__ == "__main__":
    main()
