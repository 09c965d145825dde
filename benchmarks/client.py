"""The time in which a client on the same machine has a run's steps as a frame, over the collector's API.

    python -m benchmarks.client [--steps 1000000]

Collector, store and client are processes of their own; each client is a fresh one that has imported what it needs, and
the shortest of CALLS reads counts. Beside it stand the frame that a process makes from the store itself, the Parquet
file of the run (which holds all metrics) read by pandas, and a client without pyarrow, which gets CSV. The peak memory
of the collector is compared with that after reads of a tenth of the run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import sqlalchemy as sa

from benchmarks.collectors import collector, cpu_seconds, memory_mib
from benchmarks.databases import databases
from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.steps import writer
from db.steps.columns import MetricColumn
from db.store.engine import create_engine, writing
from lossguard.vocabulary.states import SegmentReason

METRICS = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")
CALLS, CHUNK = 5, 20_000
LIMIT_SECONDS = 1.5

CLIENT = """
import io, json, sys, time
import numpy, pandas
url, ways, metrics, steps, calls = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4]), int(sys.argv[5])
if ways == "csv":
    sys.modules["pyarrow"] = None
else:
    import pyarrow
if ways == "store":
    from db import frames, queries
    from db.store.engine import create_engine, reading
    engine = create_engine(url)
else:
    from lossguard import Client
    client = Client(url, timeout=120)

def read():
    if ways == "store":
        with reading(engine) as session:
            return frames.steps(session, run=queries.run_named(session, run_id="r"), metrics=metrics).iloc[:steps]
    if ways == "parquet":
        with client.stream("/runs/r/export") as stream:
            return pandas.read_parquet(io.BytesIO(stream.read()), columns=["step", "time", *metrics])
    return client.run("r").frame(metrics, steps=(0, steps))

best, used = float("inf"), time.process_time()
for _ in range(calls):
    began = time.perf_counter()
    assert len(read()) == steps
    best = min(best, time.perf_counter() - began)
print(json.dumps([best, (time.process_time() - used) / calls]))
"""


def measure(length: int = 1_000_000) -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, database in databases(stack, folder).items():
            engine = create_engine(database)
            migrate.upgrade(engine)
            fill(engine, length)
            engine.dispose()
            yield from _measure(name, database, length)


def _measure(name: str, database: str, length: int) -> Iterator[Row]:
    with collector(database) as (url, process):
        _read(url, "arrow", METRICS, length // 10)
        small = memory_mib(process, "VmHWM")
        for metrics in (METRICS[:1], METRICS):
            before = cpu_seconds(process)
            seconds, used = _read(url, "arrow", metrics, length)
            busy, peak = (cpu_seconds(process) - before) / CALLS, memory_mib(process, "VmHWM")
            store, store_used = _read(database, "store", metrics, length)
            note = f"CPU time: {busy:.2f} s of the collector, {used:.2f} s of the client"
            note += f"; from the store itself {store:.2f} s ({store_used:.2f} s of CPU)"
            note += f"; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            if metrics == METRICS:
                note += f"; the collector's peak memory {peak:.0f} MiB, {small:.0f} MiB after a tenth of the steps"
                note += f"; as a Parquet file {_read(url, 'parquet', metrics, length, calls=2)[0]:.2f} s"
            label = f"{name}: {length:,} steps, {len(metrics)} metric{'s' * (len(metrics) > 1)}"
            yield Row(f"{label}, as a frame", seconds, "s", LIMIT_SECONDS, note)
            seconds, used = _read(url, "csv", metrics, length, calls=1)
            yield Row(f"{label}, without pyarrow", seconds, "s", None, f"CPU time of the client: {used:.2f} s")


def _read(url: str, way: str, metrics: tuple[str, ...], steps: int, calls: int = CALLS) -> tuple[float, float]:
    """Seconds of the fastest read in a new process, and the mean of its CPU time."""
    command = [sys.executable, "-c", CLIENT, url, way, ",".join(metrics), str(steps), str(calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, used = json.loads(done.stdout)
    return seconds, used


def fill(engine: sa.Engine, length: int) -> None:
    """Store the run `r` with METRICS, in one segment."""
    values = {"id": "r", "project": "bench", "config": {}, "devices": [], "versions": {}}
    with writing(engine) as session:
        commands.register_run(session, values=values | {"capabilities": [], "policy": None, "started_at": 0.0}, now=0.0)
    random = np.random.default_rng(0)
    for first in range(0, length, CHUNK):
        steps = range(first, min(first + CHUNK, length))
        columns = {name: MetricColumn.of((3.0 + random.normal(size=len(steps))).tolist()) for name in METRICS}
        columns["tokens"] = MetricColumn.of([4096.0 * step for step in steps])
        with writing(engine) as session:
            run = queries.run_named(session, run_id="r")
            assert run is not None
            segment, _ = commands.open_segment(
                session, run=run, key="a", fork_step=0, reason=SegmentReason.START, order_id=None, opened_at=0.0
            )
            times = [1.7e9 + step / 3 for step in steps]
            writer.insert_steps(session, run=run, segment=segment.number, steps=steps, times=times, metrics=columns)
            commands.grow_segment(segment, steps=steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client")
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the run")
    print_rows(measure(parser.parse_args().steps))
