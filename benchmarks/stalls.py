"""Incidents of the speed of a run: the fail-over of the leader among the collectors, what a look costs, false alarms.

    python -m benchmarks.stalls [--kills 5] [--runs 1000] [--postgresql]

Two collector processes share a store. The one that leads is killed (SIGKILL) at a random moment, and in the same moment
a run becomes overdue: measured is the time until the other one leads, and until the incident is in the store. Then the
killed one is started again. The cost is that of the leader's query, its incidents left out. The false alarms are those
of synthetic step times: checkpoints, evaluations, noise, drifting noise, sampled rows.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy as sa
import urllib3

from benchmarks.collectors import collector
from benchmarks.rows import Row, print_rows
from db import migrate
from db.models import Incident, Run, RunStatus
from db.records import live_runs
from db.store import leader
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import IncidentKind, RunState
from monitor.detection.rows import Floats, Rows
from monitor.detection.throughput.pace import Change, Pace
from monitor.detection.throughput.row_gaps import MIN_GAPS, RowGaps
from tests import postgres
from tests.waiting import wait_for

TARGET_SECONDS = 15.0
BREAK = 3600.0


@contextmanager
def database(*, is_postgresql: bool) -> Iterator[str]:
    with ExitStack() as open_now:
        if is_postgresql:
            yield open_now.enter_context(postgres.running()).create_database("stalls")
        else:
            yield f"sqlite:///{open_now.enter_context(tempfile.TemporaryDirectory())}/store.db"


def fail_over(url: str, kills: int, name: str) -> Iterator[Row]:
    """Kill the leader again and again."""
    engine = create_engine(url)
    migrate.upgrade(engine)
    with writing(engine) as session:
        for number in range(kills):
            _add_run(session, f"run-{number}")
    led, found = [], []
    with ExitStack() as open_now:
        collectors = dict(open_now.enter_context(collector(url)) for _ in range(2))
        wait_for(lambda: _leaders(collectors), seconds=30, what="a leader")
        with writing(engine) as session:  # as if it had led for an hour
            session.execute(sa.update(leader.Leader).values(since=leader.Leader.since - BREAK))
        for number in range(kills):
            time.sleep(random.uniform(3.0, 8.0))
            (old,) = _leaders(collectors)
            os.kill(collectors.pop(old), signal.SIGKILL)
            began = time.monotonic()
            _make_overdue(engine, f"run-{number}")
            wait_for(lambda: _leaders(collectors), seconds=60, what="the other collector to lead")
            led.append(time.monotonic() - began)
            wait_for(lambda: _num_stalls(engine) == len(led), seconds=60, what="the incident")
            found.append(time.monotonic() - began)
            restarted, process = open_now.enter_context(collector(url))
            collectors[restarted] = process
    assert _num_stalls(engine) == kills
    engine.dispose()
    comparison = f"{kills} kills of the leader; slowest {max(led):.1f} s"
    yield Row(f"fail-over of the leader, {name}", median(led), "s", TARGET_SECONDS, comparison)
    slowest = f"the slowest of {kills}; median {median(found):.1f} s"
    yield Row(f"from the kill to the incident of an overdue run, {name}", max(found), "s", TARGET_SECONDS, slowest)


def _add_run(session: sa.orm.Session, run_id: str) -> None:
    now = leader.now(session)
    run = Run(id=run_id, project="bench", state=RunState.RUNNING, config={}, devices=[], versions={}, capabilities=[],
              restorable_steps=[], started_at=now, last_report_at=now)  # fmt: skip
    session.add(run)
    session.flush()
    session.add(RunStatus(run_pk=run.pk, last_step_at=now, latest_values={}, peaks=[], recent_reports=[], step=100))


def _make_overdue(engine: sa.Engine, run_id: str) -> None:
    with writing(engine) as session:
        key = sa.select(Run.pk).where(Run.id == run_id).scalar_subquery()
        late = leader.now(session) - 1000.0
        session.execute(
            sa.update(RunStatus).where(RunStatus.run_pk == key).values(last_step_at=late, stall_after=120.0)
        )


def _leaders(collectors: dict[str, int]) -> list[str]:
    with urllib3.PoolManager(retries=False) as http:
        return [url for url in collectors if b"\nlossguard_leader 1.0" in http.request("GET", f"{url}/metrics").data]


def _num_stalls(engine: sa.Engine) -> int:
    with reading(engine) as session:
        found = sa.select(sa.func.count()).select_from(Incident).where(Incident.kind == IncidentKind.STALL)
        return session.scalar(found) or 0


def cost(url: str, runs: int, name: str, looks: int = 30) -> Iterator[Row]:
    """A look at `runs` live runs among eleven times as many, none of which is overdue; and a renewal of the lease."""
    engine = create_engine(url)
    _fill(engine, runs)
    looked, renewed = [], []
    for _ in range(looks):
        with writing(engine) as session:
            began = time.perf_counter()
            lease = leader.claim(session, role="bench", holder="me", seconds=60.0)
        renewed.append(time.perf_counter() - began)
        assert lease is not None
        began = time.perf_counter()
        with reading(engine) as session:
            found = live_runs.silent(session, now=lease.now, since=lease.now - BREAK, default=600.0, limit=50)
        looked.append(time.perf_counter() - began)
        assert not found
    engine.dispose()
    comparison = f"slowest of {looks}: {1e3 * max(looked):.1f} ms; renewal of the lease {1e3 * median(renewed):.1f} ms"
    yield Row(f"a look at {runs:,} live runs, {name}", 1e3 * median(looked), "ms", None, comparison)


def _fill(engine: sa.Engine, runs: int) -> None:
    """`runs` live runs, and ten times as many that have ended."""
    migrate.upgrade(engine)
    empty: dict[str, Any] = {"config": {}, "devices": [], "versions": {}, "capabilities": [], "restorable_steps": []}
    with writing(engine) as session:
        now = leader.now(session)
        empty |= {"project": "bench", "started_at": now, "last_report_at": now}
        states = [RunState.RUNNING] * runs + [RunState.FINISHED] * 10 * runs
        session.execute(sa.insert(Run), [{**empty, "id": f"r{at}", "state": state} for at, state in enumerate(states)])
        blank: dict[str, Any] = {"last_step_at": now, "latest_values": {}, "peaks": [], "recent_reports": []}
        keys = session.scalars(sa.select(Run.pk)).all()
        session.execute(sa.insert(RunStatus), [{**blank, "run_pk": key, "stall_after": 120.0} for key in keys])


SECONDS = (0.02, 0.3, 2.0, 20.0)
NOISES = (0.01, 0.05, 0.2, 0.4)
PATTERNS = ("plain", "slow steps", "whole seconds", "every tenth row", "wandering", "occasional pauses")


def false_alarms(rows_each: int, seeds: int) -> Iterator[Row]:
    """Slowdowns and stalls in runs that are as fast as ever."""
    num_rows = slowdowns = stalls = 0
    for seconds, noise, pattern, seed in product(SECONDS, NOISES, PATTERNS, range(seeds)):
        rows = _healthy(rows_each, seconds, noise, pattern, seed)
        num_rows += len(rows)
        begun = [finding for _, finding in Pace().observe(rows) if finding.change is Change.BEGAN]
        slowdowns += len(begun)
        stalls += _num_false_stalls(rows)
    runs = len(SECONDS) * len(NOISES) * len(PATTERNS) * seeds
    for kind, count in (("slowdowns", slowdowns), ("stalls", stalls)):
        comparison = f"{count} in {num_rows:,} rows of {runs} synthetic runs"
        yield Row(f"false {kind} per 10,000 rows", 1e4 * count / num_rows, "", None, comparison)


def _healthy(steps: int, seconds: float, noise: float, pattern: str, seed: int) -> Rows:
    random_numbers = np.random.default_rng(seed)
    took: Floats = seconds * np.exp(noise * random_numbers.standard_normal(steps))
    if pattern in ("slow steps", "every tenth row"):
        took[49::50] *= 10  # a checkpoint
        took[99::100] *= 2  # an evaluation: 20 times as long
    if pattern == "wandering":  # by a tenth, over thousands of steps: other jobs on the same file system
        took *= np.exp(0.1 * np.sin(np.arange(steps) / 700.0 + seed))
    if pattern == "occasional pauses":
        took[random_numbers.random(steps) < 1e-3] += 60.0
    times = 1.8e9 + np.cumsum(took)
    if pattern == "whole seconds":
        times = np.floor(times)
    kept = slice(None, None, 10 if pattern == "every tenth row" else 1)
    return Rows(np.arange(steps)[kept], {}, {}, times[kept])


def _num_false_stalls(rows: Rows) -> int:
    """Silences that reach the limit that the rows before them give. A leader that looks all the time would see them."""
    gaps, count = RowGaps(), 0
    assert rows.times is not None
    for index, gap in enumerate(np.diff(rows.times).tolist()):
        gaps.update(rows[index : index + 1])
        count += index >= MIN_GAPS and gap > 100.0 and gap > gaps.limit()
    return count


def measure(given: argparse.Namespace) -> Iterator[Row]:
    """All of it."""
    name = "PostgreSQL" if given.postgresql else "SQLite"
    if given.kills:
        with database(is_postgresql=given.postgresql) as url:
            yield from fail_over(url, given.kills, name)
    if given.runs:
        with database(is_postgresql=given.postgresql) as url:
            yield from cost(url, given.runs, name)
    yield from false_alarms(given.rows, given.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=4000, help="of each synthetic run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--postgresql", action="store_true")
    given = parser.parse_args()
    print_rows(measure(given))


if __name__ == "__main__":
    main()
