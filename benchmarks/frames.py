"""The time and the memory that frames, exports and imports of a run take.

    python -m benchmarks.frames [--steps 1000000]

The run has a rollback and three metrics, in a SQLite file in a temporary folder. The frame of one metric
alternates with pandas.read_sql of the same two columns from a SQLite table of rows in this process; minima of 7. Each
export and import is a process of its own; its peak memory is compared with that for a run of a tenth of the length.
"""

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from benchmarks.rows import Row, print_rows
from benchmarks.store import fill
from db import frames, migrate, queries
from db.lineage import Line
from db.store.engine import create_engine, reading

CALLS = 7
LIMIT_SECONDS = 0.6


def measure(length: int = 1_000_000) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.db"
        engine = create_engine(f"sqlite:///{store}")
        migrate.upgrade(engine)
        for steps in (length // 10, length):
            fill(engine, steps, np.array([steps // 3]))
        yield from _frame(engine, store, length)
        engine.dispose()
        for suffix in ("parquet", "csv"):
            yield from _files(Path(folder), store, suffix, length)


def _frame(engine: sa.Engine, store: Path, length: int) -> Iterator[Row]:
    def frame() -> int:
        with reading(engine) as session:
            run = queries.run_named(session, run_id=f"run-{length}")
            assert run is not None
            return len(frames.steps(session, run=run, metrics=["loss"]))

    def plain() -> int:
        return len(pd.read_sql("SELECT step, loss FROM rows WHERE live ORDER BY segment, step", connection))

    connection = sqlite3.connect(store.with_name("plain.db"))
    with reading(engine) as session:
        (run,) = (one for one in queries.runs(session) if one.id == f"run-{length}")
        frames.steps(session, run=run, line=Line.ALL).reset_index().to_sql("rows", connection, index=False)
    (ours, theirs), (busy, _) = (
        _in_turn(clock, frame, plain, length) for clock in (time.perf_counter, time.process_time)
    )
    connection.close()
    note = f"{busy:.2f} s of CPU; pandas.read_sql of step and loss {theirs:.2f} s: {ours / theirs:.2f} times that"
    yield Row(f"live line of {length:,} steps, one metric, as a frame", ours, "s", LIMIT_SECONDS, note)


def _in_turn(
    clock: Callable[[], float], first: Callable[[], int], second: Callable[[], int], length: int
) -> tuple[float, float]:
    """The shortest time of each; they alternate, so that other load on the machine affects both."""
    best = [float("inf"), float("inf")]
    for _ in range(CALLS):
        for at, call in enumerate((first, second)):
            began = clock()
            assert call() == length
            best[at] = min(best[at], clock() - began)
    return best[0], best[1]


def _files(folder: Path, store: Path, suffix: str, length: int) -> Iterator[Row]:
    measured: dict[str, list[tuple[float, float]]] = {"export": [], "import": []}
    for steps in (length // 10, length):
        file = folder / f"run-{steps}.{suffix}"
        measured["export"].append(_command(store, "export", f"run-{steps}", "-o", str(file)))
        measured["import"].append(_command(store, "import", str(file), "--as", f"copy-{steps}-{suffix}"))
    size = (folder / f"run-{length}.{suffix}").stat().st_size / 2**20
    for verb, ((_, small), (seconds, peak)) in measured.items():
        note = f"peak memory {peak:.0f} MiB; {small:.0f} MiB at a tenth of the steps; {size:.0f} MiB of file"
        yield Row(f"{verb} of {length:,} live steps, {suffix}", seconds, "s", None, note)


PEAK = """
import runpy, sys
try:
    runpy.run_module("db", run_name="__main__")
finally:
    print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""
"""`python -m db`, which prints its own peak memory in KiB; what a parent can measure includes the parent's."""


def _command(store: Path, *given: str) -> tuple[float, float]:
    """(seconds, peak MiB) of `python -m db`, start-up included."""
    began = time.perf_counter()
    command = [sys.executable, "-c", PEAK, *given, "--url", f"sqlite:///{store}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stderr) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frames")
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the live line")
    print_rows(measure(parser.parse_args().steps))
