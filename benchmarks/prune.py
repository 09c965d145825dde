"""How long `python -m db prune` takes, how much space it gives back, and how long reports wait meanwhile.

    python -m benchmarks.prune [--runs 1000] [--steps 100000] [--trainers 20] [--sqlite]

A temporary PostgreSQL server with safe settings (or a SQLite file), and a collector to which trainers report a step at
a time. One run is stored as the collector would store it, with 8 metrics; the others are copies of its rows. First the
oldest runs are pruned, which were registered one after another; then half as many of the next ones, of which every
second one is kept; then one run is deleted over HTTP. The seconds before, when nothing happens, are the comparison.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import sqlalchemy as sa
import urllib3

from benchmarks.client import CHUNK
from benchmarks.collectors import collector
from benchmarks.rows import Row, print_rows
from benchmarks.steady_reports import METRICS, SteadyReports, steady_reports
from db import commands, migrate
from db.models import Base, Run
from db.steps import writer
from db.steps.columns import MetricColumn
from db.store import compaction, partitions
from db.store.engine import create_engine, writing
from lossguard.vocabulary.protocol import API
from lossguard.vocabulary.states import RunState, SegmentReason
from tests import postgres

LIMIT_SECONDS, LIMIT_MS = 10.0, 1_000.0
QUIET_SECONDS = 10.0
OLD, MIXED, KEPT = "old", "mixed", "kept"


def measure(runs: int = 1_000, *, steps: int = 100_000, trainers: int = 20, sqlite: bool = False) -> Iterator[Row]:
    with ExitStack() as stack:
        if sqlite:
            database = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/store.db"
        else:
            database = stack.enter_context(postgres.running(durable=True)).url()
        engine = create_engine(database)
        migrate.upgrade(engine)
        fill(engine, [OLD] * runs + [MIXED, KEPT] * (runs // 4), steps)
        url, _ = stack.enter_context(collector(database))
        where = "SQLite" if sqlite else "PostgreSQL"
        with steady_reports(url, runs=trainers) as reports:
            began = time.monotonic()
            time.sleep(QUIET_SECONDS)
            quiet = f"quiet: {1e3 * reports.longest_gap(began):.0f} ms and {1e3 * reports.longest_wait(began):.0f} ms"
            yield from _prune(engine, reports, OLD, f"{where}: prune of {runs:,} runs of {steps:,} steps", quiet)
            label = f"{where}: prune of {runs // 4:,} runs, every second one of a row"
            yield from _prune(engine, reports, MIXED, label, quiet)
            began = time.monotonic()
            answer = urllib3.request("DELETE", f"{url}{API}/runs/{KEPT}-{runs + 3}")
            took = time.monotonic() - began
            if answer.status >= 300:
                raise RuntimeError(f"the deletion was answered {answer.status}: {answer.data[:300]!r}")
            yield Row(f"{where}: a run of {steps:,} steps is deleted over HTTP", 1e3 * took, "ms", LIMIT_MS, "")
        engine.dispose()


def _prune(engine: sa.Engine, reports: SteadyReports, project: str, label: str, quiet: str) -> Iterator[Row]:
    url = engine.url.render_as_string(hide_password=False)
    _run("retention", "set", project, "1", "--url", url)
    before, began = compaction.num_bytes(engine), time.monotonic()
    printed = _run("prune", "--url", url)
    took = time.monotonic() - began
    time.sleep(1.0)
    gap, wait = 1e3 * reports.longest_gap(began), 1e3 * reports.longest_wait(began)
    deleted = len(re.findall("^deleted ", printed, re.MULTILINE))
    note = f"{deleted:,} deleted; {before / 1e9:.2f} GB before, {compaction.num_bytes(engine) / 1e9:.2f} GB after"
    yield Row(label, took, "s", LIMIT_SECONDS, note)
    yield Row(f"{label}: longest time without an acknowledged report", gap, "ms", LIMIT_MS, quiet)
    yield Row(
        f"{label}: the slowest report", wait, "ms", LIMIT_MS, f"{reports.num_refused} were refused and sent again"
    )


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "db", *arguments]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": "200"}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def fill(engine: sa.Engine, projects: list[str], steps: int) -> None:
    """Store an ended run of each project, named `<project>-<key>`."""
    _store_first(engine, steps)
    columns = {table: _columns(table) for table in Base.metadata.sorted_tables if "run_pk" in table.columns}
    for pk, project in enumerate(projects, 2):
        with writing(engine) as session:
            first = {column.name: column for column in Run.__table__.columns}
            values = first | {"pk": sa.literal(pk), "id": sa.literal(f"{project}-{pk}"), "project": sa.literal(project)}
            session.execute(sa.insert(Run).from_select(list(values), sa.select(*values.values()).where(Run.pk == 1)))
            partitions.make_for(session, pk)
            for table, names in columns.items():
                copied = sa.select(sa.literal(pk), *(table.c[name] for name in names)).where(table.c.run_pk == 1)
                session.execute(sa.insert(table).from_select(["run_pk", *names], copied))
    if engine.dialect.name == "postgresql":
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("SELECT setval('runs_pk_seq', (SELECT max(pk) FROM runs))")
            connection.exec_driver_sql("VACUUM (ANALYZE)")


def _columns(table: sa.Table) -> list[str]:
    """Those of a row but its run and a number that the database gives."""
    return [column.name for column in table.columns if column.name not in ("run_pk", "id")]


def _store_first(engine: sa.Engine, num_steps: int) -> None:
    """The run with the key 1, as a collector stores it in reports of many steps."""
    values = {"id": "first", "project": "first", "config": {}, "devices": [], "versions": {}, "capabilities": []}
    random = np.random.default_rng(0)
    for first in range(0, num_steps, CHUNK):
        steps = range(first, min(first + CHUNK, num_steps))
        columns = {name: MetricColumn.of((3.0 + random.normal(size=len(steps))).tolist()) for name in METRICS}
        with writing(engine) as session:
            run, _ = commands.register_run(session, values=values | {"policy": None, "started_at": 0.0}, now=0.0)
            segment, _ = commands.open_segment(
                session, run=run, key="a", fork_step=0, reason=SegmentReason.START, order_id=None, opened_at=0.0
            )
            times = [1.7e9 + step / 3 for step in steps]
            writer.insert_steps(session, run=run, segment=segment.number, steps=steps, times=times, metrics=columns)
            commands.grow_segment(segment, steps=steps)
            commands.finish_run(session, run=run, state=RunState.FINISHED, at=1.0, now=1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune")
    parser.add_argument("--runs", type=int, default=1_000, help="pruned first")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of a run")
    parser.add_argument("--trainers", type=int, default=20)
    parser.add_argument("--sqlite", action="store_true", help="a SQLite file instead of PostgreSQL")
    print_rows(measure(**vars(parser.parse_args())))
