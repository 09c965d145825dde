"""What the detection of a step costs, without HTTP and store: microseconds of CPU time per row, part by part.

    python -m benchmarks.engine                     reports of 1,000 rows of one run; of one row of 1 to 1,000 runs
    python -m benchmarks.engine --before v1.8.0     the same of an earlier commit, on the same machine, in one table

The rows have the 8 metrics of the ingestion benchmark. The work is that of a collector: rows from the columns of
a report, the engine, the limit of a stall, and the state and the snapshots of the detectors as JSON as often as a
collector stores them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row, print_rows
from db.steps.columns import MetricColumn
from monitor.detection import DetectionEngine
from monitor.ingestion import columns
from monitor.ingestion.columns import StepColumns
from monitor.ingestion.detection_state import SNAPSHOT_EVERY
from monitor.ingestion.run_cache import MAX_UNSAVED_ROWS

ROOT = Path(__file__).resolve().parent.parent
WARM_ROWS = 1_000
"""Rows of each run before the measurement: its thresholds are known."""
NUM_ROWS = 20_000
"""Rows that are measured."""
detector_row: Any = getattr(columns, "detector_row", None)  # an earlier release has none


def measure() -> Iterator[Row]:
    for size, num_runs in ((1_000, 1), (1, 1), (1, 64), (1, 256), (1, 1_000)):
        engines = [DetectionEngine() for _ in range(num_runs)]
        num_reports = max(NUM_ROWS // size // num_runs, 4)
        runs = [reports(seed, size, num_reports) for seed in range(num_runs)]
        for engine, (warm, _) in zip(engines, runs, strict=True):
            engine.feed(columns.detector_rows(warm.steps, warm.times, warm.metrics))
        cost = cost_per_row(engines, [run for _, run in runs], size)
        parts = ", ".join(f"{name} {us:.2f}" for name, us in cost.items())
        yield Row(f"reports of {size:,} row(s), {num_runs:,} run(s)", sum(cost.values()), "us per row", None, parts)


def reports(seed: int, size: int, count: int) -> tuple[StepColumns, list[StepColumns]]:
    """WARM_ROWS rows of a quiet run in one report, and the `count` reports after it."""
    random, at = np.random.default_rng(seed), np.arange(WARM_ROWS + size * count)
    metrics = {
        "loss": 2.5 + 3 / (1 + at / 500) + random.normal(0, 0.02, len(at)),
        "grad_norm": 0.5 + np.abs(random.normal(0, 0.05, len(at))),
        "log_z": random.normal(1.0, 0.01, len(at)),
        "log_z_max": 2.0 + random.random(len(at)),
        "z_loss": 1e-4 * random.random(len(at)),
        "lr": np.full(len(at), 3e-4),
        "tokens": 8192.0 * (at + 1),
        "step_seconds": 0.4 + random.random(len(at)) / 100,
    }
    named = {name: MetricColumn.of(column.tolist()) for name, column in metrics.items()}
    whole = StepColumns(at.tolist(), (1.8e9 + 0.4 * at).tolist(), named)
    firsts = range(WARM_ROWS, len(at), size)
    return whole.between(0, WARM_ROWS), [whole.between(first, first + size) for first in firsts]


def cost_per_row(
    engines: Sequence[DetectionEngine], runs: Sequence[Sequence[StepColumns]], size: int
) -> dict[str, float]:
    """Microseconds by part. The reports of the runs come in turn, as from trainers that step together."""
    in_turn = [
        (engine, report) for group in zip(*runs, strict=True) for engine, report in zip(engines, group, strict=True)
    ]
    num_rows = size * len(in_turn)
    is_row = size == 1 and detector_row is not None

    def make() -> list[Any]:
        if is_row:
            return [detector_row(one.steps[0], one.times[0], one.metrics) for _, one in in_turn]
        return [columns.detector_rows(one.steps, one.times, one.metrics) for _, one in in_turn]

    made = make()

    def feed() -> None:
        for (engine, _), rows in zip(in_turn, made, strict=True):
            engine.feed_row(rows) if is_row else engine.feed(rows)

    limits = [1.0] * 32
    each = 1e6 / num_rows
    return {
        "rows": each * cpu_seconds(make),
        "engine": each * cpu_seconds(feed),
        "stall limit": each * cpu_seconds(lambda: [engine.throughput.limit(limits) for engine, _ in in_turn]),
        "state": 1e6 * saved(engines[0].state_dict) / max(size, MAX_UNSAVED_ROWS),
        "snapshots": 1e6 * saved(engines[0].detectors_state) / max(size, SNAPSHOT_EVERY),
    }


def saved(state: Callable[[], object], times: int = 20) -> float:
    """Seconds that the state takes as JSON."""
    return cpu_seconds(lambda: [json.dumps(state()) for _ in range(times)]) / times


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measured_at(commit: str) -> None:
    """Print the table of another commit, by this file and the code of that commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        path = Path(folder) / "benchmarks" / "engine.py"
        path.write_text(Path(__file__).read_text())
        environment = {**os.environ, "PYTHONPATH": folder}
        subprocess.run([sys.executable, "-m", "benchmarks.engine"], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="measure that commit first")
    options = parser.parse_args()
    if options.before:
        print(f"{options.before}:\n", flush=True)
        measured_at(options.before)
        print("\nnow:\n", flush=True)
    print_rows(measure())
