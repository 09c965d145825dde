"""How long a scrape of /metrics takes with many live runs, all of which report between any two scrapes.

    python -m benchmarks.scrape [--runs 200 2000] [--postgresql]

A collector process with a store of that many running runs, each with 16 recent reports, incidents, interventions and a
rollback, and five times as many runs that have ended. The CPU time is the collector's.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import urllib3

from benchmarks import many_runs
from benchmarks.collectors import collector, cpu_seconds
from benchmarks.rows import Row, print_rows
from db import migrate
from db.store.engine import create_engine
from tests import postgres

TARGET_MS = 300.0


def measure(counts: Sequence[int] = (200,), scrapes: int = 20, *, is_postgresql: bool = False) -> Iterator[Row]:
    for runs in counts:
        with database(is_postgresql=is_postgresql) as url:
            yield _scrapes(url, runs, scrapes)


@contextmanager
def database(*, is_postgresql: bool) -> Iterator[str]:
    """The URL of an empty database."""
    if is_postgresql:
        with postgres.running() as server:
            yield server.create_database("bench")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/store.db"


def _scrapes(url: str, runs: int, scrapes: int) -> Row:
    engine = create_engine(url)
    migrate.upgrade(engine)
    many_runs.fill(engine, 6 * runs, live=runs)
    took, used = [], 0.0
    with (
        collector(url, LOSSGUARD_MAX_RUNS_IN_METRICS=str(runs)) as (address, process),
        urllib3.PoolManager(retries=False) as http,
    ):
        for _ in range(scrapes):
            many_runs.report(engine)
            before, began = cpu_seconds(process), time.perf_counter()
            answer = http.request("GET", f"{address}/metrics")
            took.append(1e3 * (time.perf_counter() - began))
            used += 1e3 * (cpu_seconds(process) - before) / scrapes
    engine.dispose()
    assert answer.data.count(b"\nlossguard_step{") == runs
    lines = answer.data.count(b"\n")
    comparison = f"{lines:,} lines, {len(answer.data) / 1e6:.1f} MB; slowest of {scrapes}: {max(took):.0f} ms"
    name = f"scrape of /metrics, {runs:,} live runs, {engine.dialect.name}"
    return Row(name, median(took), "ms", TARGET_MS, f"{comparison}; {used:.0f} ms of CPU time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape")
    parser.add_argument("--runs", type=int, nargs="+", default=[200, 2000], help="live runs")
    parser.add_argument("--postgresql", action="store_true")
    chosen = parser.parse_args()
    print_rows(measure(chosen.runs, is_postgresql=chosen.postgresql))
