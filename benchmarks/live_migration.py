"""How long reports wait while a store of many steps is upgraded under them, and while its rows are packed.

    python -m benchmarks.live_migration [--steps 10000000] [--trainers 20] [--release COMMIT]

A temporary PostgreSQL server with safe settings, a store of the previous release with synthetic runs of 100,000 steps,
and a collector of that release (its code is taken from git), to which trainers report one step at a time. Meanwhile
`python -m db upgrade` of this code brings the store to the newest schema. Then a collector of this code takes the
reports while `python -m db pack --enable` makes blocks of the rows. The seconds before each command, when nothing else
happens, are the comparison. Every acknowledged step must be stored.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from benchmarks.collectors import collector
from benchmarks.rows import Row, print_rows
from benchmarks.steady_reports import METRICS, SteadyReports, steady_reports
from db.store.engine import create_engine
from tests import postgres, previous_release

ROOT = Path(__file__).parents[1]
RUN_STEPS = 100_000
LIMIT_MS = 1_000.0
QUIET_SECONDS = 15.0

LOGGED_MS = 50
"""Shorter waits for a lock are not in the log."""
WAITED = re.compile(rb"(?:acquired|still waiting for) \w+ on .* after ([0-9.]+) ms")

FILL = (
    "INSERT INTO runs (id, project, state, config, devices, versions, capabilities, restorable_steps, started_at,"
    " last_report_at, finished_at) SELECT 'old-' || n, 'old', 'finished', '{}', '[]', '{}', '[]', '[]', 0, n, n"
    " FROM generate_series(1, %(runs)s) n",
    "INSERT INTO segments (run_pk, number, key, reason, opened_at, fork_step, first_step, last_step, num_steps)"
    " SELECT pk, 0, 'a', 'start', 0, 0, 0, %(steps)s - 1, %(steps)s FROM runs WHERE project = 'old'",
    "INSERT INTO metrics (run_pk, number, name) SELECT pk, place - 1, metric FROM runs, unnest(%(metrics)s::text[])"
    " WITH ORDINALITY AS known(metric, place) WHERE project = 'old'",
    "INSERT INTO steps (run_pk, segment, step, time, loss, grad_norm, log_z, log_z_max, z_loss, lr, tokens,"
    " step_seconds) SELECT pk, 0, n, 1.7e9 + n, 2 + random(), random(), 1 + random(), 2 + random(), 1e-4 * random(),"
    " 3e-4, 4096 * n, 0.4 + random() / 100 FROM runs, generate_series(0, %(steps)s - 1) n WHERE project = 'old'",
    "INSERT INTO rollups (run_pk, segment, metric, level, start, first_step, last_step, count, non_finite, min, max,"
    " mean, first, last) SELECT pk, 0, metric, 2, n, n, n + 63, 64, 0, 2, 3, 2.5, 2.2, 2.7"
    " FROM runs, generate_series(0, 7) metric, generate_series(0, %(steps)s - 64, 64) n WHERE project = 'old'",
)
"""SQL for a store of the previous release; a bucket of 64 steps has one roll-up a metric."""


def measure(steps: int = 10_000_000, *, trainers: int = 20, release: str = previous_release.COMMIT) -> Iterator[Row]:
    with ExitStack() as stack:
        old_code = previous_release.unpack(Path(stack.enter_context(tempfile.TemporaryDirectory())), release)
        server = stack.enter_context(postgres.running(durable=True))
        database = server.url()
        _log_waits(database)
        _run(old_code, "-m", "db", "upgrade", "--url", database)
        fill(database, steps)
        load = Load(database, trainers, Path(server.folder) / "log")
        upgrade = ("-m", "db", "upgrade", "--url", database)
        yield from _during(upgrade, load, old_code, f"{trainers} trainers, upgrade of {steps:,} stored steps")
        pack = ("-m", "db", "pack", "--enable", "--url", database)
        yield from _during(pack, load, ROOT, f"{trainers} trainers, {steps:,} stored steps are packed")


@dataclass(frozen=True, slots=True)
class Load:
    """A store, and the number of trainers that report to a collector of it."""

    database: str
    trainers: int
    log: Path
    """That of the server."""


def _during(command: Sequence[str], load: Load, code: Path, label: str) -> Iterator[Row]:
    """Run the command of this release while trainers report to a collector whose code is in `code`."""
    project = f"during-{command[2]}"
    with (
        collector(load.database, code=code) as (url, _),
        steady_reports(url, runs=load.trainers, project=project) as reports,
    ):
        began = time.monotonic()
        time.sleep(QUIET_SECONDS)
        quiet_gap, quiet_wait = _gaps(reports, began)
        num_logged = len(load.log.read_bytes())
        began = time.monotonic()
        _run(ROOT, *command)
        took = time.monotonic() - began
        time.sleep(2.0)
        gap, wait = _gaps(reports, began)
    check_stored(load.database, project, len(reports.times))
    note = f"quiet: {quiet_gap:.0f} ms; `{' '.join(command[1:3])}` took {took:.1f} s"
    yield Row(f"{label}: longest time without an acknowledged report", gap, "ms", LIMIT_MS, note)
    waits = [float(ms) for ms in WAITED.findall(load.log.read_bytes()[num_logged:])]
    note = f"quiet: {quiet_wait:.0f} ms; {reports.num_refused} reports were refused and sent again; "
    note += f"the longest wait for a lock, of any process: {max(waits, default=LOGGED_MS):.0f} ms"
    yield Row(f"{label}: the slowest report", wait, "ms", LIMIT_MS, note)


def _log_waits(database: str) -> None:
    """Let the server log waits for locks: they are as long on a busy machine as on an idle one."""
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET log_lock_waits = on")
        connection.exec_driver_sql(f"ALTER SYSTEM SET deadlock_timeout = {LOGGED_MS}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


def fill(database: str, steps: int) -> None:
    """Store ended runs, as the previous release would have them."""
    engine = create_engine(database)
    values = {"runs": max(1, steps // RUN_STEPS), "steps": min(steps, RUN_STEPS), "metrics": list(METRICS)}
    for statement in FILL:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # foreign keys are not checked
            connection.exec_driver_sql(statement, values)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
    engine.dispose()


def check_stored(database: str, project: str, acknowledged: int) -> None:
    """Raise RuntimeError unless the store counts exactly the steps that were acknowledged."""
    engine = create_engine(database)
    with engine.connect() as connection:
        counted = "SELECT sum(num_steps) FROM segments JOIN runs ON pk = run_pk WHERE project = :project"
        stored = connection.scalar(sa.text(counted), {"project": project})
    engine.dispose()
    if stored != acknowledged:
        raise RuntimeError(f"{acknowledged} steps were acknowledged, {stored} are stored")


def _gaps(reports: SteadyReports, since: float) -> tuple[float, float]:
    """Milliseconds without an acknowledged report, and those of the slowest report."""
    return 1e3 * reports.longest_gap(since), 1e3 * reports.longest_wait(since)


def _run(code: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(code)}
    subprocess.run([sys.executable, *arguments], cwd=code, env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_migration")
    parser.add_argument("--steps", type=int, default=10_000_000, help="stored before the upgrade")
    parser.add_argument("--trainers", type=int, default=20)
    parser.add_argument("--release", default=previous_release.COMMIT, help="commit of the previous release")
    print_rows(measure(**vars(parser.parse_args())))
