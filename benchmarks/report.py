"""Time and size of a report on a run of a million steps with 100 incidents, half of them rolled back.

    python -m benchmarks.report [--store FILE]

The run is that of benchmarks.dashboard; a store named by --store is filled once and kept. No detector state is stored
near the incidents, as is usual for old ones: each band costs 10,000 steps of learning.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.dashboard import NUM_STEPS, fill
from benchmarks.rows import Row, print_rows
from db import commands, migrate, queries
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import OrderState

NUM_INCIDENTS = 100
TARGET_HTML_SECONDS, TARGET_MEGABYTES = 60.0, 10.0


def add_incidents(engine: sa.Engine) -> None:
    with reading(engine) as session:
        run = queries.run_named(session, run_id="long")
        assert run is not None
        if queries.incidents(session, run=run):
            return
    for number in range(1, NUM_INCIDENTS + 1):
        _add_incident(engine, number, number * 9 * NUM_STEPS // (10 * NUM_INCIDENTS))


def _add_incident(engine: sa.Engine, number: int, onset: int) -> None:
    values = {
        "kind": "loss_spike", "state": "closed", "signal": "loss", "onset_step": onset, "detected_step": onset + 4,
        "peak_step": onset + 9, "end_step": onset + 60, "score": 3.0 + number, "outcome": "recovered",
        "details": {"peak_value": 25.0, "expected": 2.5, "scale": 0.03, "reasons": ["The loss rose for 8 steps."] * 4},
    }  # fmt: skip
    back, now = {"rewind_to": onset - 100, "skip_from": onset - 100, "skip_to": onset + 100}, time.time()
    with writing(engine) as session:
        run = queries.run_named(session, run_id="long")
        assert run is not None
        commands.save_incident(session, run=run, number=number, segment=int(onset >= NUM_STEPS // 2), now=now, **values)
        if number % 2:
            return
        done = commands.save_intervention(
            session, run=run, number=number // 2, now=now, incident=number, kind="rollback", state="verified",
            attempt=1, lr_scale=None, details={"decided_step": onset + 20, "verify_at": onset + 120}, **back,
        )  # fmt: skip
        order = commands.issue_order(session, intervention=done, reason="It rose.", now=now)
        done_at: dict[str, Any] = {
            "rewound_to": back["rewind_to"],
            "skip_from": back["skip_from"],
            "skip_to": back["skip_to"],
        }
        commands.answer_order(session, order=order, state=OrderState.APPLIED, detail="", now=now, **done_at)


def measure(store: Path) -> Iterator[Row]:
    engine = create_engine(f"sqlite:///{store}")
    migrate.upgrade(engine)
    fill(engine, NUM_STEPS)
    add_incidents(engine)
    engine.dispose()
    with tempfile.TemporaryDirectory() as folder:
        for suffix, target in ((".html", TARGET_HTML_SECONDS), (".pdf", None)):
            file = Path(folder) / f"report{suffix}"
            wall, cpu = _timed([sys.executable, "-m", "dashboard", "report", "long", "-o", str(file)], store)
            label = f"report of {NUM_STEPS:,} steps and {NUM_INCIDENTS} incidents, {suffix}"
            used = f"CPU time: {cpu:.1f} s" + (
                " including the Chromium processes that were waited for" if suffix == ".pdf" else ""
            )
            comparison = f"{used}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            yield Row(label, wall, "s", target, comparison)
            yield Row(f"{label}, its size", file.stat().st_size / 1e6, "MB", TARGET_MEGABYTES, "")


def _timed(command: list[str], store: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--database", f"sqlite:///{store}"], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a SQLite file to keep")
    store = parser.parse_args().store
    with tempfile.TemporaryDirectory() as folder:
        print_rows(measure(store or Path(folder) / "lossguard.db"))


if __name__ == "__main__":
    main()
