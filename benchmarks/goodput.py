"""How long it takes to say what the time of a run was used for, by the length of the run.

    python -m benchmarks.goodput [--steps 10000 1000000] [--rollbacks 200 2000]

A run with a rollback, a save every 50 steps, an evaluation every 1,000, and 20 hangs; and runs that roll back every ten
steps, with what their rollbacks cost.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from statistics import median

import numpy as np
import sqlalchemy as sa

from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.goodput.reading import breakdown
from db.goodput.rollback_costs import read_rewinds
from db.models import Run, Segment
from db.steps import writer
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import SegmentReason

CHUNK = 10_000
REPEATS = 10


def measure(lengths: list[int]) -> Iterator[Row]:
    for length in lengths:
        with tempfile.TemporaryDirectory() as folder:
            engine = create_engine(f"sqlite:///{folder}/store.db")
            migrate.upgrade(engine)
            with writing(engine) as session:
                ended = fill(session, length)
            yield _row(engine, length, ended)
            engine.dispose()


def _row(engine: sa.Engine, length: int, now: float) -> Row:
    took = []
    for _ in range(REPEATS):
        with reading(engine) as session:
            run = queries.runs(session)[0]
            began = time.process_time()
            found = breakdown(session, run=run, now=now)
            took.append(1e3 * (time.process_time() - began))
    hangs = found.seconds["hang"] / 900  # type: ignore[index]
    return Row(f"goodput of {length:,} steps", median(took), "ms", None, f"{hangs:.1f} hangs of 900 s found")


def measure_rollbacks(counts: list[int]) -> Iterator[Row]:
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            engine = create_engine(f"sqlite:///{folder}/store.db")
            migrate.upgrade(engine)
            with writing(engine) as session:
                run, at = _register(session), 0.0
                for number in range(count):
                    segment, first = _open(session, run, 5 * number, at), 5 * number
                    at = _report(session, run, segment, range(first, first + 10), at, 10 * count)
            with reading(engine) as session:
                run, tree = queries.runs(session)[0], queries.segments(session, run=queries.runs(session)[0])
                began = time.process_time()
                breakdown(session, run=run, now=at)
                split = time.process_time()
                found = read_rewinds(session, run=run, segments=tree, orders={})
                ended = time.process_time()
            engine.dispose()
            yield Row(f"goodput of {count:,} segments", 1e3 * (split - began), "ms", None, "")
            yield Row(f"costs of {len(found):,} rollbacks", 1e3 * (ended - split), "ms", None, "")


def _register(session: sa.orm.Session) -> Run:
    values = {"id": "r", "project": "bench", "config": {}, "devices": [], "versions": {}, "capabilities": []}
    return commands.register_run(session, values=values | {"started_at": 0.0}, now=0.0)[0]


def fill(session: sa.orm.Session, length: int) -> float:
    """A run of `length` steps of a second; returns when it did the last one."""
    run = _register(session)
    half = length // 2
    at = _report(session, run, _open(session, run, 0, 60.0), range(half + 200), 60.0, length // 20)
    return _report(session, run, _open(session, run, half, at + 20), range(half, length), at + 20, length // 20)


def _open(session: sa.orm.Session, run: Run, fork: int, at: float) -> Segment:
    reason = SegmentReason.ROLLBACK if fork else SegmentReason.START
    return commands.open_segment(
        session, run=run, key=str(fork), fork_step=fork, reason=reason, order_id=None, opened_at=at
    )[0]


def _report(session: sa.orm.Session, run: Run, segment: Segment, steps: range, at: float, every: int) -> float:
    for start in range(0, len(steps), CHUNK):
        some = np.array(steps[start : start + CHUNK])
        saving = np.where(some % 50 == 0, 0.5, np.nan)
        evaluating = np.where(some % 1000 == 999, 30.0, np.nan)
        hanging = np.where(some % every == 7, 900.0, 0.0)
        times = at + np.cumsum(1.0 + np.nan_to_num(saving) + np.nan_to_num(evaluating) + hanging)
        metrics: dict[str, list[float | None]] = {
            "loss": [2.0] * len(some),
            "tokens": (1000.0 * some).tolist(),
            "step_seconds": [1.0] * len(some),
            "checkpoint_seconds": [None if value != value else value for value in saving.tolist()],
            "evaluation_seconds": [None if value != value else value for value in evaluating.tolist()],
        }
        writer.insert_steps(
            session, run=run, segment=segment.number, steps=some.tolist(), times=times.tolist(), metrics=metrics
        )
        commands.grow_segment(segment, steps=some.tolist())
        at = float(times[-1])
    return at


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goodput")
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 1_000_000], help="lengths of the runs")
    parser.add_argument("--rollbacks", type=int, nargs="+", default=[200, 2_000], help="numbers of segments")
    options = parser.parse_args()
    print_rows(chain(measure(options.steps), measure_rollbacks(options.rollbacks)))
