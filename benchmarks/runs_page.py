"""The list of runs with many runs: from the navigation to the first run on the screen, and what its reads cost.

    python -m benchmarks.runs_page [--runs 10 1000] [--steps 500] [--layouts Cards Table] [--pages-only]

Page: Chromium and a dashboard process on this machine, medians of 5 views with a warm browser cache; beside them the
first view of the process, and the CPU time that the dashboard used for a view. The machine decides the seconds: the
ratio to the smallest number of runs says what a longer list costs. Reads: progress, two metrics and a sparkline of
every run, in one session; the median of 5, as CPU time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
import sqlalchemy as sa
from playwright.sync_api import Page

from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.engine import create_engine, reading, writing
from db.steps import writer
from lossguard.states import RunState, SegmentReason
from tests.dashboard.browser import chromium, dashboard

VIEWS, RUNS_PER_COMMIT = 5, 50
TARGET_SECONDS = 1.0
FIRST_RUN = {
    "Cards": "[class*=st-key-card-] [data-testid=stMetricValue]",
    "Table": "[data-testid=stDataFrame] canvas [role=gridcell]",
}


def measure(counts: Sequence[int], steps: int, layouts: Sequence[str], pages_only: bool) -> Iterator[Row]:
    smallest: dict[str, float] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            engine = create_engine(f"sqlite:///{folder}/store.db")
            migrate.upgrade(engine)
            fill(engine, count, steps)
            if not pages_only:
                yield _row(f"reads of {count:,} runs, CPU", _cpu_seconds(engine), smallest, "reads", "")
            for layout in layouts:
                seconds, note = _views(str(engine.url), layout)
                yield _row(f"{layout}, {count:,} runs", seconds, smallest, layout, note)
            engine.dispose()


def _row(name: str, seconds: float, smallest: dict[str, float], key: str, note: str) -> Row:
    ratio = seconds / smallest.setdefault(key, seconds)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return Row(name, seconds, "s", TARGET_SECONDS, f"{note}{ratio:.2f} times the smallest; {load}")


def _read(engine: sa.Engine) -> None:
    from db import overview

    with reading(engine) as session:
        overview.tallies(session)
        found = overview.summaries(session, runs=queries.runs(session), metrics=["loss", "grad_norm"])
    assert all(summary.metrics["loss"].sparkline for summary in found.values())


def _views(database: str, layout: str) -> tuple[float, str]:
    """Seconds of a view, and what the first one took, and what one costs the dashboard."""
    with dashboard(database) as served, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        url = f"{served.url}/?layout={layout}"
        first = _view(page, url, FIRST_RUN[layout])
        used = served.cpu_ms()
        seconds = [_view(page, url, FIRST_RUN[layout]) for _ in range(VIEWS)]
        used = (served.cpu_ms() - used) / VIEWS
    return statistics.median(seconds), f"{first:.2f} s at first; {used:.0f} ms of CPU time each; "


def _view(page: Page, url: str, first_run: str) -> float:
    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(first_run, state="attached", timeout=120_000)
    return time.perf_counter() - began


def _cpu_seconds(engine: sa.Engine) -> float:
    seconds = []
    for _ in range(VIEWS):
        began = time.process_time()
        _read(engine)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def fill(engine: sa.Engine, count: int, steps: int) -> None:
    """Runs of a sweep over the learning rate and the seed, all but the newest ended."""
    noise, now = np.random.default_rng(1), time.time()
    at = np.arange(steps)
    for start in range(0, count, RUNS_PER_COMMIT):
        with writing(engine) as session:
            for number in range(start, min(count, start + RUNS_PER_COMMIT)):
                began = now - 3600.0 * (count - number)
                config = {"optimizer": {"lr": 10.0 ** -(number % 4), "betas": [0.9, 0.95]}, "seed": number // 4 % 5}
                values = {
                    "id": f"r{number}", "project": "gpt", "name": f"sweep {number}", "config": config, "host": "node-1",
                    "command": "python train.py", "git_commit": None, "devices": ["NVIDIA H100"], "versions": {},
                    "capabilities": [], "policy": None, "total_steps": steps, "started_at": began,
                }  # fmt: skip
                run = commands.register_run(session, values=values, now=began)[0]
                segment = commands.open_segment(
                    session, run=run, key="a", fork_step=0, reason=SegmentReason.START, order_id=None, opened_at=began
                )[0]
                loss = 2.1 + 3.4 * np.exp(-at / (steps / 5)) + noise.normal(0, 0.03, steps)
                writer.insert_steps(
                    session, run=run, segment=0, steps=range(steps), times=(began + at).tolist(),
                    metrics={"loss": loss.tolist(), "grad_norm": (loss / 5).tolist()},
                )  # fmt: skip
                commands.grow_segment(segment, steps=range(steps))
                if number < count - 1:
                    commands.finish_run(session, run=run, state=RunState.FINISHED, at=began + steps, now=began + steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--layouts", nargs="+", choices=list(FIRST_RUN), default=list(FIRST_RUN))
    parser.add_argument("--pages-only", action="store_true", help="leave out the reads")
    chosen = parser.parse_args()
    print_rows(measure(chosen.runs, chosen.steps, chosen.layouts, chosen.pages_only))
