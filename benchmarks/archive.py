"""What archiving the steps of a run costs and saves, and how charts and frames of archived steps compare.

    python -m benchmarks.archive [--steps 1000000] [--to URL]

Two equal runs with 8 metrics are in each store (a SQLite file, and a temporary PostgreSQL server if PostgreSQL is
installed); one of them is archived, by default to a temporary folder. Times are medians of calls that alternate between
the two runs, so that a busy machine slows both; each reads the files anew, besides their footers.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.databases import databases
from benchmarks.rows import Row, print_rows
from db import commands, frames, migrate, queries
from db.archive import archiving, turn, unarchiving
from db.archive.archiving import Written
from db.steps import writer
from db.steps.archived.places import Place
from db.steps.archived.reading import forget_contents
from db.steps.columns import MetricColumn
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import RunState, SegmentReason

STEPS, POINTS, CHUNK, CALLS = 1_000_000, 1_500, 10_000, 15
STORED, ARCHIVED = "stored", "archived"
METRICS = ("loss", "grad_norm", "log_z", "lr", "tokens", "step_seconds", "eval/loss", "batch_index")
WHO = "benchmark"


def measure(num_steps: int = STEPS, to: str | None = None) -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, url in databases(stack, folder).items():
            engine = create_engine(url)
            migrate.upgrade(engine)
            for run_id in (STORED, ARCHIVED):
                fill(engine, run_id, num_steps)
            yield from _measure(engine, name, num_steps, Place(to or f"{folder}/{name}"))
            engine.dispose()


def _measure(engine: sa.Engine, name: str, num_steps: int, place: Place) -> Iterator[Row]:
    label = f"{name}, {num_steps:,} steps"
    raw_mb = num_steps * 8 * (len(METRICS) + 3) / 1e6  # with perplexity, step and time
    before = _value_bytes(engine)
    files, seconds = _timed_archive(engine, place)
    stays = (_value_bytes(engine) - before / 2) / num_steps + _head_bytes(engine) / (2 * num_steps)
    num_bytes = sum(file.num_bytes for file in files)
    note = f"{before / 2 / num_steps + _head_bytes(engine) / (2 * num_steps):.1f} before; {stays:.2f} stay in the store"
    yield Row(f"{label}: bytes a step in Parquet", num_bytes / num_steps, "bytes", None, note)
    yield Row(f"{label}: archiving", raw_mb / seconds, "MB/s", None, f"of numbers; {num_steps / seconds:,.0f} steps/s")
    for what, call in _calls(engine, num_steps).items():
        stored, archived = _medians(call)
        yield Row(f"{label}: {what}, archived", archived, "ms", None, f"{stored:.3g} ms stored")
    seconds = _timed_unarchive(engine)
    yield Row(f"{label}: bringing back", raw_mb / seconds, "MB/s", None, f"{num_steps / seconds:,.0f} steps/s")


def _calls(engine: sa.Engine, num_steps: int) -> dict[str, Callable[[str], object]]:
    middle = num_steps // 2
    return {
        f"overview of {POINTS:,} points": lambda run: _chart(engine, run),
        "zoom to every step": lambda run: _chart(engine, run, middle, middle + POINTS - 1),
        "frame of one metric": lambda run: _frame(engine, run, ["loss"]),
        "frame of all metrics": lambda run: _frame(engine, run, None),
    }


def fill(engine: sa.Engine, run_id: str, num_steps: int) -> None:
    """An ended run: noise around trends, of which half is float32 as a trainer has it."""
    random = np.random.default_rng(0)
    values: dict[str, Any] = {
        "id": run_id,
        "project": "benchmark",
        "name": None,
        "config": {},
        "command": None,
        "git_commit": None,
    }
    values |= {"host": None, "devices": [], "versions": {}, "capabilities": [], "policy": None, "total_steps": None}
    with writing(engine) as session:
        run, _ = commands.register_run(session, values=values | {"started_at": 0.0}, now=0.0)
        segment, _ = commands.open_segment(
            session, run=run, key="a", fork_step=0, reason=SegmentReason.START, order_id=None, opened_at=0.0
        )
        for first in range(0, num_steps, CHUNK):
            steps = np.arange(first, min(first + CHUNK, num_steps))
            noise = random.normal(size=(len(METRICS), len(steps)))
            columns = {name: noise[number].astype(np.float32).astype(float) for number, name in enumerate(METRICS)}
            columns["loss"] = 3 + 5 / (1 + steps / 1000) + 0.1 * noise[0]
            columns |= {"tokens": steps * 524_288.0, "batch_index": steps * 1.0, "lr": np.full(len(steps), 3e-4)}
            writer.insert_steps(
                session,
                run=run,
                segment=segment.number,
                steps=steps.tolist(),
                times=(1.7e9 + steps * 0.5 + random.random(len(steps)) / 100).tolist(),
                metrics={name: MetricColumn.of(column.tolist()) for name, column in columns.items()},
            )
            commands.grow_segment(segment, steps=steps.tolist())
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=1.0, now=1.0)


def _timed_archive(engine: sa.Engine, place: Place) -> tuple[list[Written], float]:
    files: list[Written] = []
    began = time.perf_counter()
    archiving.prepare(engine, place)
    with turn.taken(engine) as ours:
        archiving.archive_run(engine, run_id=ARCHIVED, place=place, turn=ours, now=2.0, who=WHO, on_file=files.append)
    return files, time.perf_counter() - began


def _timed_unarchive(engine: sa.Engine) -> float:
    began = time.perf_counter()
    with turn.taken(engine) as ours:
        unarchiving.unarchive_run(engine, run_id=ARCHIVED, turn=ours, now=3.0, who=WHO, on_file=lambda written: None)
    return time.perf_counter() - began


def _chart(engine: sa.Engine, run_id: str, first: int | None = None, last: int | None = None) -> object:
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        assert run is not None
        live = queries.live(session, run=run)
        return queries.series(session, run=run, step_ranges=live, metric="loss", first=first, last=last, points=POINTS)


def _frame(engine: sa.Engine, run_id: str, metrics: list[str] | None) -> object:
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        assert run is not None
        return frames.steps(session, run=run, metrics=metrics)


def _medians(call: Callable[[str], object]) -> tuple[float, float]:
    """Milliseconds of the stored run, and of the archived one."""
    seconds: dict[str, list[float]] = {STORED: [], ARCHIVED: []}
    for run_id in (STORED, ARCHIVED) * (CALLS + 1):
        forget_contents()
        began = time.perf_counter()
        call(run_id)
        seconds[run_id].append(time.perf_counter() - began)
    return tuple(1e3 * statistics.median(seconds[run_id][1:]) for run_id in (STORED, ARCHIVED))  # type: ignore[return-value]


def _value_bytes(engine: sa.Engine) -> int:
    return _sum(engine, 'SELECT sum(length("values") + COALESCE(length(reported), 0)) FROM block_values')


def _head_bytes(engine: sa.Engine) -> int:
    return _sum(engine, "SELECT sum(length(times) + COALESCE(length(steps), 0)) FROM step_blocks")


def _sum(engine: sa.Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(statement)) or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--to", help="place of the files; a temporary folder by default")
    arguments = parser.parse_args()
    print_rows(measure(arguments.steps, arguments.to))


if __name__ == "__main__":
    main()
