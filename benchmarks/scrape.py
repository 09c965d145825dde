"""How long a scrape of /metrics takes with 200 live runs.

    python -m benchmarks.scrape [--runs 200]

A collector process with a store of that many running runs, each with 16 recent reports, incidents, interventions and a
rollback, and ten times as many runs that have ended.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from statistics import median

import sqlalchemy as sa
import urllib3

from benchmarks.collectors import collector
from benchmarks.rows import Row, print_rows
from db import commands, migrate
from db.engine import create_engine, writing
from db.models import Run
from db.steps.columns import MetricColumn
from lossguard.states import RunState, SegmentReason
from monitor.ingestion import run_status
from monitor.ingestion.columns import StepColumns

TARGET_MS = 200.0
STEPS_PER_REPORT = 8


def measure(runs: int = 200, scrapes: int = 20) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/store.db"
        fill(database, runs)
        with collector(database) as (url, _), urllib3.PoolManager(retries=False) as http:
            took = []
            for _ in range(scrapes):
                began = time.perf_counter()
                answer = http.request("GET", f"{url}/metrics")
                took.append(1e3 * (time.perf_counter() - began))
    assert answer.data.count(b"\nlossguard_step{") == runs
    lines = answer.data.count(b"\n")
    comparison = f"{lines:,} lines, {len(answer.data) / 1e6:.1f} MB; slowest of {scrapes}: {max(took):.0f} ms"
    yield Row(f"scrape of /metrics, {runs} live runs", median(took), "ms", TARGET_MS, comparison)


def fill(database: str, runs: int) -> None:
    """A store with `runs` running runs and ten times as many that have ended."""
    engine = create_engine(database)
    migrate.upgrade(engine)
    with writing(engine) as session:
        for number in range(11 * runs):
            _add(session, number, ended=number >= runs)
    engine.dispose()


def _add(session: sa.orm.Session, number: int, *, ended: bool) -> None:
    now = time.time()
    values = {"id": f"run-{number:05d}", "project": "bench", "config": {"lr": 1e-3}, "devices": [], "versions": {}}
    run, _ = commands.register_run(session, values=values | {"capabilities": [], "started_at": now}, now=now)
    session.flush()
    if ended:
        run.state = RunState.FINISHED
    for key, first, reason in (("a", 0, SegmentReason.START), ("b", 100, SegmentReason.ROLLBACK)):
        segment, _ = commands.open_segment(
            session, run=run, key=key, fork_step=first, reason=reason, order_id=None, opened_at=now + first
        )
        commands.grow_segment(segment, steps=range(first, first + 200))
    _add_incidents(session, run, now)
    status = commands.run_status_of(session, run=run, now=now)
    for report in range(run_status.NUM_RATE_REPORTS):
        steps = range(report * STEPS_PER_REPORT, (report + 1) * STEPS_PER_REPORT)
        columns = {name: MetricColumn.of([float(step) for step in steps]) for name in run_status.GAUGES}
        new = StepColumns(steps, [now + 0.4 * step for step in steps], columns)
        for name, value in run_status.with_steps(status, new, now).items():
            setattr(status, name, value)


def _add_incidents(session: sa.orm.Session, run: Run, now: float) -> None:
    for number, state in ((1, "closed"), (2, "open")):
        values = {"kind": "loss_spike", "signal": "loss", "onset_step": 50, "detected_step": 51, "details": {}}
        commands.save_incident(session, run=run, number=number, segment=0, now=now, state=state, **values)
    values = {"incident": 1, "kind": "rollback", "attempt": 1, "details": {}}
    for number, state in ((1, "verified"), (2, "applied")):
        commands.save_intervention(session, run=run, number=number, now=now, state=state, **values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape")
    parser.add_argument("--runs", type=int, default=200, help="live runs")
    print_rows(measure(parser.parse_args().runs))
