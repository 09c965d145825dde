"""The time to read a chart from runs of different lengths, on SQLite and PostgreSQL.

    python -m benchmarks.store [--steps 10000 100000 1000000]

Each length is a run with a rollback, and with 20 injected spikes of one step each on its live line. Timed are an
overview of 1,500 points and a zoom into 1,500 steps in the middle: medians of 30 calls, each in a new session. The
stores are a SQLite file in a temporary folder, and a temporary PostgreSQL server if PostgreSQL is installed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import sqlalchemy as sa

from benchmarks.databases import databases
from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.steps import writer
from db.steps.buckets import Floats
from db.steps.columns import MetricColumn
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import SegmentReason

LENGTHS = (10_000, 100_000, 1_000_000)
POINTS, SPIKES, CALLS, CHUNK = 1_500, 20, 30, 20_000
LIMIT_MS = 20.0


def measure(lengths: Sequence[int] = LENGTHS) -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, url in databases(stack, folder).items():
            engine = create_engine(url)
            migrate.upgrade(engine)
            for length in lengths:
                yield from _measure(engine, name, length)
            engine.dispose()


def _measure(engine: sa.Engine, name: str, length: int) -> Iterator[Row]:
    spikes = np.linspace(length // 50, length - 7, SPIKES).astype(int)
    began = time.perf_counter()
    fill(engine, length, spikes)
    note = f"filled at {length / (time.perf_counter() - began):,.0f} steps/s, two metrics and the perplexity"
    series = ask(engine, length)
    assert len(series) <= POINTS
    ends = zip(series.first_step, series.last_step, series.max, strict=True)
    shown = [(low, high) for low, high, most in ends if most == 9.0]
    hidden = sum(not any(low <= spike <= high for low, high in shown) for spike in spikes)
    middle = length // 2
    overview = _median_ms(lambda: ask(engine, length))
    zoom = _median_ms(lambda: ask(engine, length, middle, middle + POINTS - 1))
    label = f"{name}, {length:,} steps"
    yield Row(f"{label}: overview of {len(series):,} points", overview, "ms", LIMIT_MS, note)
    yield Row(f"{label}: zoom to every step", zoom, "ms", LIMIT_MS, "")
    yield Row(f"{label}: injected spikes that it hides", hidden, f"of {SPIKES}", 0, "")


def ask(engine: sa.Engine, length: int, first: int | None = None, last: int | None = None) -> queries.Series:
    """The loss of the live line, as the dashboard reads it."""
    with reading(engine) as session:
        run = queries.run_named(session, run_id=f"run-{length}")
        assert run is not None
        live = queries.live(session, run=run)
        return queries.series(session, run=run, step_ranges=live, metric="loss", first=first, last=last, points=POINTS)


def _median_ms(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def fill(
    engine: sa.Engine,
    length: int,
    spikes: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]] = (),
    *,
    more: Sequence[str] = (),
    chunk: int = CHUNK,
) -> None:
    """Store a run that was rolled back from its middle, as the collector stores it: loss, lr, and `more` metrics.

    `chunk`: steps of a transaction.
    """
    loss = 3.0 + 0.01 * np.sin(np.arange(length))
    loss[np.asarray(spikes, dtype=np.int64)] = 9.0
    fork = length // 2 - length // 7
    values = {"id": f"run-{length}", "project": "bench", "config": {}, "devices": [], "versions": {}}
    with writing(engine) as session:
        commands.register_run(session, values=values | {"capabilities": [], "policy": None, "started_at": 0.0}, now=0.0)
    first = np.where(np.arange(length // 2) < fork, loss[: length // 2], 5.0)
    for key, reason, begin, part in (
        ("a", SegmentReason.START, 0, first),
        ("b", SegmentReason.REWIND, fork, loss[fork:]),
    ):
        _segment(engine, length, key, reason, begin, part, more, chunk)


def _segment(
    engine: sa.Engine, length: int, key: str, reason: SegmentReason, fork: int, loss: Floats, more: Sequence[str],
    chunk: int,
) -> None:  # fmt: skip
    for at in range(0, len(loss), chunk):
        part = loss[at : at + chunk]
        steps = range(fork + at, fork + at + len(part))
        metrics = {name: MetricColumn.of(part.tolist()) for name in ("loss", *more)}
        metrics["lr"] = MetricColumn.of([3e-4] * len(part))
        with writing(engine) as session:
            run = queries.run_named(session, run_id=f"run-{length}")
            assert run is not None
            segment, _ = commands.open_segment(
                session, run=run, key=key, fork_step=fork, reason=reason, order_id=None, opened_at=0.0
            )
            times = [float(step) for step in steps]
            writer.insert_steps(session, run=run, segment=segment.number, steps=steps, times=times, metrics=metrics)
            commands.grow_segment(segment, steps=steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store")
    parser.add_argument("--steps", type=int, nargs="+", default=LENGTHS, help="lengths of the runs")
    print_rows(measure(parser.parse_args().steps))
