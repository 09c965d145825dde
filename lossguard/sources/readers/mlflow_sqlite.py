"""MLflow's SQLite store (sqlite:///mlflow.db)."""

import math
from collections.abc import Iterator
from pathlib import Path

from lossguard.sources.readers.mlflow_files import described
from lossguard.sources.readers.sqlite_store import opened, stores_in
from lossguard.sources.rows import Row, StoredScalar, joined
from lossguard.sources.source_run import SourceRun

WHAT = "MLflow's SQLite stores"
TABLES = {
    "experiments": ("experiment_id", "name"),
    "runs": ("run_uuid", "experiment_id", "status", "start_time", "end_time"),
    "metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "params": ("run_uuid", "key", "value"),
    "tags": ("run_uuid", "key", "value"),
}
LARGEST = 1.7976931348623157e308
"""Stands for an infinite value."""
RUNS = (
    "SELECT run_uuid, experiments.name, status, start_time, end_time FROM runs"
    " LEFT JOIN experiments ON experiments.experiment_id = runs.experiment_id"
    " WHERE runs.lifecycle_stage IS NOT 'deleted' ORDER BY start_time, run_uuid"
)
METRICS = (
    "SELECT timestamp, step, key, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, key, value"
)


def runs_in(path: Path) -> Iterator[SourceRun]:
    for file in stores_in(path, TABLES):
        with opened(file) as store:
            for run_id, experiment, status, started_at, ended_at in store.execute(RUNS).fetchall():
                pairs = {
                    table: dict(store.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run_id,)))
                    for table in ("params", "tags")
                }
                (steps,) = store.execute("SELECT count(DISTINCT step) FROM metrics WHERE run_uuid = ?", (run_id,))
                yield described(
                    run_id=run_id,
                    name=None,
                    experiment=experiment,
                    status=status,
                    started_at=started_at,
                    ended_at=ended_at,
                    params=pairs["params"],
                    tags=pairs["tags"],
                    place=str(file),
                    rows=lambda file=file, run_id=run_id: _rows(file, run_id),  # type: ignore[misc]
                    size=steps[0],
                )


def _rows(path: Path, run_id: str) -> Iterator[Row]:
    with opened(path) as store:
        yield from joined(
            StoredScalar(timestamp / 1000, step, key, _value(value, is_nan))
            for timestamp, step, key, value, is_nan in store.execute(METRICS, (run_id,))
        )


def _value(value: float, is_nan: int) -> float:
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value
