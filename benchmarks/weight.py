"""Bytes per step in the store and memory of a collector: the figures to size a machine.

    python -m benchmarks.weight [--reports 300]

A real collector with a new store receives a run over HTTP in reports of 1,000 steps with 8 metrics, all detectors on.
The growth of the store (rows, roll-ups, indexes, states of the detectors) is divided by the number of steps. SQLite's
log is emptied into the file before it is measured; PostgreSQL's log, which does not grow with the run, is not counted.
Shorter runs follow: of the same numbers in float32, and with many metrics of their own. The memory is that of the
collector's process: idle, and its peak with one run and with 50 runs that report at once.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import sqlalchemy as sa

from benchmarks.collectors import collector, memory_mib
from benchmarks.databases import databases
from benchmarks.ingest import NUM_METRICS, SIZE, encoded_reports, post_all
from benchmarks.rows import Row, print_rows
from db.store.engine import create_engine
from lossguard.spool.lines import to_line

NUM_RUNS, NUM_CUSTOM, LIMIT_BYTES = 50, 100, 150.0
NAMED_TABLES = ("steps", "step_blocks", "block_values", "rollups")
TABLE_SIZES = {
    "sqlite": "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name GROUP BY 1",
    "postgresql": "SELECT COALESCE(p.relname, c.relname), sum(pg_total_relation_size(c.oid)) FROM pg_class c"
    " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent"
    " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1",
}
"""SQL for the bytes of each table, with its indexes and its partitions."""


def measure(reports: int = 300) -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, url in databases(stack, folder).items():
            yield from _measure(name, url, reports)


def _measure(name: str, database: str, reports: int) -> Iterator[Row]:
    with collector(database) as (url, process):
        at_rest, empty = memory_mib(process, "VmRSS"), table_sizes(database)
        post_all(url, [encoded_reports(0, reports)])
        full, one_run = table_sizes(database), memory_mib(process, "VmHWM")
        post_all(url, [encoded_reports(seed, 2) for seed in range(NUM_RUNS)])
        many_runs = memory_mib(process, "VmHWM")
    label = f"{name}: a step with {NUM_METRICS} metrics"
    yield _weight(label, empty, full, reports, f"; {_spool_bytes():.0f} bytes in the trainer's spool")
    for what, bodies in _other_reports(max(reports // 10, 1)).items():
        with collector(database) as (url, _):
            empty = table_sizes(database)
            post_all(url, [bodies], prefix=what)
            yield _weight(f"{name}: a step {what}", empty, table_sizes(database), len(bodies))
    note = f"at rest {at_rest:.0f} MiB; one run, reports of {SIZE:,} steps: peak {one_run:.0f} MiB"
    yield Row(f"{name}: peak memory of a collector, {NUM_RUNS} runs at once", many_runs, "MiB", None, note)


def _weight(label: str, empty: Mapping[str, int], full: Mapping[str, int], reports: int, note: str = "") -> Row:
    grown = {table: float(full[table] - empty.get(table, 0)) / (reports * SIZE) for table in full}
    total = sum(grown.values())
    parts = ", ".join(f"{part} {grown[part]:.0f}" for part in NAMED_TABLES)
    rest = total - sum(grown[part] for part in NAMED_TABLES)
    note = f"{parts}, everything else {rest:.1f}; {1e3 / total:.1f} million steps a GB{note}"
    limit = None if "custom" in label else LIMIT_BYTES
    return Row(f"{label}, {reports * SIZE:,} steps", total, "bytes", limit, note)


def _other_reports(count: int) -> dict[str, list[bytes]]:
    """Reports of the same run, as it would report float32 numbers, and with many metrics of its own."""
    noise = random.Random(0)
    plain = [json.loads(body) for body in encoded_reports(0, count)]
    rounded = [
        body | {"metrics": {name: _float32(values) for name, values in body["metrics"].items()}} for body in plain
    ]
    custom = {f"layer/{index}": 2.0**-index for index in range(NUM_CUSTOM)}
    many = [
        body | {"metrics": {name: [noise.gauss(1, 0.1) * scale for _ in range(SIZE)] for name, scale in custom.items()}}
        for body in plain
    ]
    return {
        f"with {NUM_METRICS} metrics in float32": [json.dumps(body).encode() for body in rounded],
        f"with {NUM_CUSTOM} custom metrics": [json.dumps(body).encode() for body in many],
    }


def _float32(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.array(values, dtype=np.float32)]


def table_sizes(database: str) -> dict[str, int]:
    """Bytes of each table with its indexes; SQLite's log is emptied into the file first."""
    engine = create_engine(database)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = {table: int(size) for table, size in connection.execute(sa.text(TABLE_SIZES[engine.dialect.name]))}
    engine.dispose()
    return sizes


def _spool_bytes() -> float:
    """Bytes of such a step in the SDK's spool."""
    names = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")
    metrics = {name: 2.123456789012345 for name in names}
    assert len(metrics) == NUM_METRICS
    return len(to_line({"step": 100_000, "time": 1.8e9 + 0.123456, "metrics": metrics}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weight")
    parser.add_argument("--reports", type=int, default=300, help="reports of 1,000 steps")
    print_rows(measure(parser.parse_args().reports))
