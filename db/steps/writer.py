"""Store step reports as rows, or as blocks once there are enough of them (`db.steps.packing`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run, Segment, Step
from db.steps import packing, reader, rollups
from db.steps.columns import MetricColumn, perplexity
from db.steps.loose_rows import CELL
from db.steps.rollups import OpenBucket
from db.steps.step_block import StepBlock, Target
from db.store import bulk
from lossguard.vocabulary.metrics import COUNTS

Column = Sequence[float | None]


def known_steps(session: Session, *, run: Run, segment: int, steps: Sequence[int]) -> set[int]:
    """Return those of these steps that the segment holds already."""
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
    target = Target(run.pk, segment, numbers)
    if stored is not None and packing.becomes_block(stored, len(steps)):
        packing.store(session, stored, numbers, new, soon=soon)
    else:
        insert_rows(session, target, new, soon=soon)
    before = None if stored is None else stored.last_step
    open_bucket = None if kept is None else kept.open_bucket
    return WriterState(numbers, rollups.grow(session, target, new, before=before, open_bucket=open_bucket))


def _as_stored(name: str, given: Column | MetricColumn) -> MetricColumn:
    """The values that the store gives back: those that the roll-ups must hold."""
    column = given if isinstance(given, MetricColumn) else MetricColumn.of(given)
    return column.whole() if name in COUNTS else column


def insert_rows(session: Session, target: Target, new: StepBlock, *, soon: bool = False) -> None:
    """Insert a row for each step; `soon`: see `bulk.insert_soon`."""
    insert = bulk.insert_soon if soon else bulk.insert
    rows = {"run_pk": target.run_pk, "segment": new.segment, "step": new.steps.tolist(), "time": new.times.tolist()}
    insert(session, Step, rows | {"values": _encoded(new, target.numbers)})


def _encoded(new: StepBlock, numbers: Mapping[str, int]) -> list[bytes]:
    columns = new.metrics.values()
    if not columns:
        return [b""] * len(new.steps)
    cells = np.empty((len(new.steps), len(columns)), CELL)
    cells["metric"] = [numbers[name] for name in new.metrics]
    cells["value"].T[:] = [column.values for column in columns]
    if all(column.plain for column in columns):
        stored, width = cells.tobytes(), len(columns) * CELL.itemsize
        return [stored[start : start + width] for start in range(0, len(stored), width)]
    reported = np.array([column.reported for column in columns]).T
    return [row[has_value].tobytes() for row, has_value in zip(cells, reported, strict=True)]
