"""The time that the scorecard of many long runs takes, on SQLite.

    python -m benchmarks.scorecard [--runs 100] [--steps 100000] [--incidents 8]

One run is stored as the collector stores it, with a rewind, four metrics and incidents. Half of these have no figures
of the proposal, as in earlier releases: the policy decides about them again. The run is copied within the store. Timed
are reading and scoring, in this process (medians of 7 calls, each in a new session), by a process that knows nothing
and by one that has read the runs before, and the CPU time of the whole command as a process (median of 3).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.rows import Row, print_rows
from db import commands, migrate
from db.models import Base, BlockValues, Incident, Metric, Rollup, Run, Segment, Step, StoredBlock
from db.steps import writer
from db.steps.columns import MetricColumn
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import OrderKind, RunState, SegmentReason
from monitor.detection.interventions.response import WOULD
from monitor.detection.scorecard import wording
from monitor.scored_runs import ScoredRuns

CHUNK, CALLS, PROCESSES = 20_000, 7, 3
LIMIT_SECONDS = 2.0
COPIED: tuple[type[Base], ...] = (Segment, Step, StoredBlock, BlockValues, Metric, Rollup, Incident)


def measure(num_runs: int, steps: int, incidents: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        engine = create_engine(url)
        migrate.upgrade(engine)
        _store(engine, steps, incidents)
        _copy(engine, num_runs)

        def scorecard(known: ScoredRuns | None = None) -> None:
            with reading(engine) as session:
                found = (known or ScoredRuns()).read(session)
                card = wording.to_dict([each.score for each in found if each.score is not None])
            assert card["totals"]["incidents"] == num_runs * incidents

        scorecard()
        wall, busy = _median(scorecard, time.perf_counter), _median(scorecard, time.process_time)
        size = Path(folder, "store.db").stat().st_size / 1e9
        label = f"scorecard of {num_runs} runs of {steps:,} steps with {incidents} incidents each"
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        yield Row(label, wall, "s", LIMIT_SECONDS, f"{busy:.2f} s of CPU; a store of {size:.1f} GB; {load}")
        again = partial(scorecard, ScoredRuns())
        again()
        yield Row(
            "the same by a process that has read them: CPU time", _median(again, time.process_time), "s", None, ""
        )
        for name, title in (("scorecard", "scorecard"), ("settings", "settings, for comparison")):
            whole = _median(partial(_run_command, name, url), _children_seconds, PROCESSES)
            yield Row(f"the whole command {title}: CPU time", whole, "s", None, "with the start of Python")
        engine.dispose()


def _median(call: Callable[[], object], clock: Callable[[], float], times: int = CALLS) -> float:
    seconds = []
    for _ in range(times):
        began = clock()
        call()
        seconds.append(clock() - began)
    return statistics.median(seconds)


def _run_command(name: str, url: str) -> None:
    environment = os.environ | {"LOSSGUARD_DATABASE_URL": url}
    subprocess.run([sys.executable, "-m", "monitor", name], check=True, capture_output=True, env=environment)


def _children_seconds() -> float:
    """CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _store(engine: sa.Engine, steps: int, incidents: int) -> None:
    """One finished run in observe mode, whose script was started again once, a quarter before its end."""
    values: dict[str, object] = {
        "id": "run-0",
        "project": "bench",
        "config": {"world_size": 64},
        "devices": [],
        "versions": {},
    }
    values |= {"capabilities": ["rollback"], "policy": {"mode": "observe", "name": "adaptive"}, "started_at": 0.0}
    with writing(engine) as session:
        commands.register_run(session, values=values, now=0.0)
    fork = 3 * steps // 4
    _segment(engine, "a", 0, fork + 500, SegmentReason.START)
    _segment(engine, "b", fork, steps, SegmentReason.RESUME)
    with writing(engine) as session:
        run = _run(session)
        for number in range(1, incidents + 1):
            _incident(session, run, number, onset=number * (fork - 100) // incidents, with_figures=number % 2 == 0)
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=1.0, now=1.0)


def _run(session: Session) -> Run:
    return session.scalars(sa.select(Run).where(Run.id == "run-0")).one()


def _segment(engine: sa.Engine, key: str, fork: int, end: int, reason: SegmentReason) -> None:
    for low in range(fork, end, CHUNK):
        steps = range(low, min(low + CHUNK, end))
        loss = (3.0 + 0.01 * np.sin(np.array(steps))).tolist()
        columns = {"loss": loss, "grad_norm": loss, "lr": [3e-4] * len(steps), "step_seconds": [2.0] * len(steps)}
        with writing(engine) as session:
            segment, _ = commands.open_segment(
                session, run=_run(session), key=key, fork_step=fork, reason=reason, order_id=None, opened_at=float(fork)
            )
            writer.insert_steps(
                session,
                run=_run(session),
                segment=segment.number,
                steps=steps,
                times=[2.0 * step for step in steps],
                metrics={name: MetricColumn.of(column) for name, column in columns.items()},
            )
            commands.grow_segment(segment, steps=steps)


def _incident(session: Session, run: Run, number: int, *, onset: int, with_figures: bool) -> None:
    columns = {"kind": "loss_spike", "state": "closed", "signal": "loss", "onset_step": onset}
    columns |= {"detected_step": onset + 1, "peak_step": onset + 3, "end_step": onset + 40, "outcome": "recovered"}
    numbers = {"peak_value": 5.0, "expected": 3.0, "scale": 0.01, "score": 3.0}
    text = f"Observe mode{WOULD[OrderKind.ROLLBACK]} In 16 steps the excess did not halve."
    proposal = {"kind": "rollback", "decided_step": onset + 17, "rewind_to": onset - 100, "skip_from": onset - 1}
    details = columns | numbers | {"number": number, "reasons": [text]}
    details |= {"proposal": proposal | {"skip_to": onset + 19} if with_figures else None}
    commands.save_incident(session, run=run, number=number, segment=0, now=0.0, score=3.0, details=details, **columns)


def _copy(engine: sa.Engine, num_runs: int) -> None:
    """Copy the first run, with all that belongs to it."""
    with engine.begin() as connection:
        for k in range(1, num_runs):
            _copy_rows(connection, Run, {"pk": str(1 + k), "id": f"'run-{k}'"}, "pk")
            for table in COPIED:
                new = {"run_pk": str(1 + k)} | ({"id": "NULL"} if table is Incident else {})
                _copy_rows(connection, table, new, "run_pk")


def _copy_rows(connection: sa.Connection, table: type[Base], new: dict[str, str], key: str) -> None:
    names = [column.name for column in table.__table__.columns]
    values = [new.get(name, _quoted(name)) for name in names]
    into = f"INSERT INTO {table.__tablename__} ({', '.join(map(_quoted, names))})"
    connection.execute(sa.text(f"{into} SELECT {', '.join(values)} FROM {table.__tablename__} WHERE {key} = 1"))


def _quoted(name: str) -> str:
    return f'"{name}"'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--incidents", type=int, default=8)
    options = parser.parse_args()
    print_rows(measure(options.runs, options.steps, options.incidents))
