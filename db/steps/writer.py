"""Store step reports as rows, or as blocks once there are enough of them (`db.steps.packing`)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run, Segment, Step
from db.steps import packing, reader, rollups
from db.steps.columns import MetricColumn, perplexity
from db.steps.rollups import OpenBucket
from db.steps.step_block import StepBlock
from db.store import bulk
from lossguard.vocabulary.metrics import COLUMNS, COUNTS
from lossguard.vocabulary.protocol import encode_number

Column = Sequence[float | None]

MAX_ROWS = 10_000
"""Rows that are made at a time: as Python objects they take twenty times the memory of the columns."""


def known_steps(session: Session, *, run: Run, segment: int, steps: Sequence[int]) -> set[int]:
    """Which of these steps the segment holds already."""
    if not steps:
        return set()
    between = StepRange(segment, min(steps), max(steps) + 1)
    return set(reader.read_steps(session, run_pk=run.pk, step_range=between).tolist()) & set(steps)


class WriterState(NamedTuple):
    """State of a run's writer between two reports, so that the next one need not read it."""

    numbers: Mapping[str, int]
    """Numbers of all metrics of the run, by name."""
    open_bucket: OpenBucket | None = None
    """Open bucket of the segment that has grown last, if nothing of it has changed since."""


def insert_steps(
    session: Session,
    *,
    run: Run,
    segment: int,
    steps: Sequence[int],
    times: Sequence[float],
    metrics: Mapping[str, Column | MetricColumn],
    max_metrics: int | None = None,
    kept: WriterState | None = None,
    soon: bool = False,
) -> WriterState:
    """Store new steps, and update the roll-ups. Call `commands.grow_segment` afterwards.

    `steps` rise. `metrics` holds columns of the same length, with None where a metric was not reported. `kept` is what
    the last call for the run returned, if the caller has it. `soon` inserts the rows together with those of other calls
    in this transaction, see `bulk.insert_soon`. Raises rollups.TooManyMetrics when the run would have more than
    `max_metrics`.
    """
    if not steps:
        return kept or WriterState({})
    columns = {name: _as_stored(name, given) for name, given in metrics.items()}
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = perplexity(columns["loss"])
    known = None if kept is None else kept.numbers
    numbers = rollups.metric_numbers(session, run_pk=run.pk, names=columns, limit=max_metrics, known=known)
    stored = session.get(Segment, (run.pk, segment))
    new = StepBlock(segment, np.array(steps, dtype=np.int64), np.array(times, dtype=np.float64), columns)
    if stored is not None and packing.becomes_block(stored, len(steps)):
        packing.store(session, stored, numbers, new, soon=soon)
    else:
        _insert_rows(session, run, segment, steps, times, columns, soon=soon)
    before = None if stored is None else stored.last_step
    target = rollups.Target(run.pk, segment, numbers)
    open_bucket = None if kept is None else kept.open_bucket
    return WriterState(numbers, rollups.grow(session, target, new, before=before, open_bucket=open_bucket))


def _as_stored(name: str, given: Column | MetricColumn) -> MetricColumn:
    """The values that the store gives back: those that the roll-ups must hold."""
    column = given if isinstance(given, MetricColumn) else MetricColumn.of(given)
    return column.whole() if name in COUNTS else column


def _insert_rows(
    session: Session,
    run: Run,
    segment: int,
    steps: Sequence[int],
    times: Sequence[float],
    columns: Mapping[str, MetricColumn],
    *,
    soon: bool,
) -> None:
    insert = bulk.insert_soon if soon else bulk.insert
    for first in range(0, len(steps), MAX_ROWS):
        part = slice(first, first + MAX_ROWS)
        values = columns if len(steps) <= MAX_ROWS else {name: column.at(part) for name, column in columns.items()}
        insert(session, Step, table_of(run.pk, segment, steps[part], times[part], values))


def table_of(
    run_pk: int, segment: int, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, MetricColumn]
) -> dict[str, Any]:
    """The rows of these steps, as columns of the table."""
    table: dict[str, Any] = {"run_pk": run_pk, "segment": segment, "step": list(steps), "time": list(times)}
    for name in COLUMNS:
        if name in columns:
            table[name] = columns[name].stored(int if name in COUNTS else None)
    extra, non_finite = _json_columns(columns)
    for name, cells in (("extra", extra), ("non_finite", non_finite)):
        if cells:
            table[name] = [json.dumps(cells[at]) if at in cells else None for at in range(len(steps))]
    return table


def _json_columns(columns: Mapping[str, MetricColumn]) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """By position: the metrics without a column of their own, and the values that are not finite."""
    extra: dict[int, dict[str, Any]] = {}
    non_finite: dict[int, dict[str, Any]] = {}
    for name, column in columns.items():
        if name not in COLUMNS:
            for at in np.flatnonzero(column.finite).tolist():
                extra.setdefault(at, {})[name] = float(column.values[at])
        if not column.plain:
            for at in np.flatnonzero(column.reported & ~column.finite).tolist():
                non_finite.setdefault(at, {})[name] = encode_number(float(column.values[at]))
    return extra, non_finite
