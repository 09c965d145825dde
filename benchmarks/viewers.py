"""The cost of 20 viewers of a live run, and how soon a viewer sees a new report.

    python -m benchmarks.viewers [--rounds 3] [--reports 300]

Ingestion: a collector, a dashboard and viewers without a browser (tests/dashboard/viewer.py) as processes on one
machine; reports of 1,000 steps are posted as fast as they are accepted, alternately with and without viewers. Display:
a viewer in Chromium, and a report that is stored at a random moment.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from benchmarks.collectors import collector
from benchmarks.ingest import SIZE, encoded_reports, post_all
from benchmarks.rows import Row, print_rows
from db import migrate, queries
from db.store.engine import create_engine, writing
from tests.dashboard.browser import ROOT, chromium, dashboard, drawn
from tests.dashboard.seed import STEPS, report, seed

NUM_VIEWERS, TARGET_LOSS_PERCENT, TARGET_SECONDS, NUM_VIEWS = 20, 10.0, 2.0, 10
NUM_REPORTS_BEFORE = 20
"""Reports of the run when the viewers open it."""


def measure(rounds: int, reports: int) -> Iterator[Row]:
    yield from _display_delay()
    speeds: dict[int, list[float]] = {0: [], NUM_VIEWERS: []}
    shares = []
    for _ in range(rounds):
        for viewers in speeds:
            speed, share = _ingest(reports, viewers)
            speeds[viewers].append(speed)
            if viewers:
                shares.append(share)
    alone, watched = (statistics.median(column) for column in speeds.values())
    comparison = (
        f"{alone:,.0f} steps/s without, {watched:,.0f} with viewers; "
        f"the dashboard used {statistics.median(shares):.2f} cores; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    yield Row(
        f"ingestion lost to {NUM_VIEWERS} viewers", 100 * (1 - watched / alone), "%", TARGET_LOSS_PERCENT, comparison
    )


def _ingest(reports: int, viewers: int) -> tuple[float, float]:
    """Ingested steps per second, and the cores that the dashboard used meanwhile."""
    bodies = encoded_reports(0, NUM_REPORTS_BEFORE + reports)
    with (
        tempfile.TemporaryDirectory() as folder,
        collector(f"sqlite:///{folder}/store.db") as (url, _),
        dashboard(f"sqlite:///{folder}/store.db") as served,
    ):
        post_all(url, [bodies[:NUM_REPORTS_BEFORE]])
        with _watching(served.url, viewers):
            used, began = served.cpu_ms(), time.perf_counter()
            seconds = post_all(url, [bodies[NUM_REPORTS_BEFORE:]])
            share = (served.cpu_ms() - used) / 1000 / (time.perf_counter() - began)
    return reports * SIZE / seconds, share


@contextmanager
def _watching(url: str, viewers: int) -> Iterator[None]:
    if not viewers:
        yield
        return
    command = [sys.executable, "-m", "tests.dashboard.viewer", url, "run=r0", str(viewers)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(10)  # until all of them have opened the page
        yield
        output, _ = process.communicate(timeout=30)  # the end of its input ends it
        if int(output.split()[0]) <= viewers:
            raise RuntimeError(f"{viewers} viewers saw only {output}")
    finally:
        process.kill()
        process.wait(timeout=30)


def _display_delay() -> Iterator[Row]:
    """Time from the commit of a report to the drawn chart."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/store.db")
        migrate.upgrade(engine)
        seed(engine, now=time.time())
        with dashboard(str(engine.url)) as served, chromium() as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{served.url}/run?run=spiky-1")
            name, waited = drawn(page), []
            for view in range(NUM_VIEWS):
                time.sleep(1 + random.random())
                _grow(engine, STEPS + 10 * view)
                began = time.perf_counter()
                name = drawn(page, other_than=name)
                waited.append(time.perf_counter() - began)
        engine.dispose()
    comparison = f"longest {max(waited):.2f} s of {NUM_VIEWS}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    yield Row(
        "from a stored report to the drawn chart, median", statistics.median(waited), "s", TARGET_SECONDS, comparison
    )


def _grow(engine: sa.Engine, first: int) -> None:
    with writing(engine) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        report(session, run, queries.segments(session, run=run)[-1], range(first, first + 10), time.time())
        run.last_report_at = time.time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reports", type=int, default=300, help="reports of 1,000 steps in each round")
    arguments = parser.parse_args()
    print_rows(measure(arguments.rounds, arguments.reports))


if __name__ == "__main__":
    main()
