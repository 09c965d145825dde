"""Add metrics to steps that are stored, in rows and in blocks: what a client logs of a step after the step itself."""

from collections.abc import Mapping

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run, Segment
from db.steps import blocks, reader, rollups, writer
from db.steps.reader import MAX_RANGES
from db.steps.step_block import Bools, Floats, MetricColumn, RunRange, StepBlock, Target, perplexity
from db.steps.writer import insert_rows
from db.store import bulk

LateValues = Mapping[int, Mapping[str, float]]
"""Step -> metric -> value."""


def complete_steps(
    session: Session, *, run: Run, segment: Segment, values: LateValues, numbers: Mapping[str, int]
) -> dict[str, int]:
    """Add metrics to stored steps, and update the roll-ups: the numbers of the run's metrics.

    A value that differs replaces the stored one.
    """
    names = sorted({name for metrics in values.values() for name in metrics})
    names += ["perplexity"] if "loss" in names and "perplexity" not in names else []
    known = rollups.metric_numbers(session, run_pk=run.pk, names=names, known=numbers)
    target = Target(run.pk, segment.number, known)
    wanted = [RunRange(run.pk, StepRange(segment.number, step, step + 1)) for step in sorted(values)]
    changed: list[int] = []
    for start in range(0, len(wanted), MAX_RANGES):
        some = wanted[start : start + MAX_RANGES]
        for row in reader.read_rows(session, some, list(known), {run.pk: known}):
            completed, steps = _completed(row, values)
            for step in steps:  # the only one of the row
                key = (run.pk, segment.number, step)
                bulk.run(session, "DELETE FROM steps WHERE run_pk = ? AND segment = ? AND step = ?", key)
                insert_rows(session, target, completed)
            changed += steps
        for block in {block.first: block for found in blocks.find(session, some) for block in found}.values():
            completed, steps = _completed(blocks.read_whole(session, target, block.first, block.last), values)
            if steps:
                writer.rewrite(session, target, block, completed)
            changed += steps
    if changed:
        assert segment.last_step is not None
        rollups.rewrite(session, target, np.array(sorted(changed), dtype=np.int64), segment.last_step)
    return known


def _completed(stored: StepBlock, values: LateValues) -> tuple[StepBlock, list[int]]:
    """The steps with these values, and which of them changed."""
    columns = {name: (column.values.copy(), column.reported.copy()) for name, column in stored.metrics.items()}
    changed = []
    for at in np.flatnonzero(np.isin(stored.steps, list(values))).tolist():
        step = int(stored.steps[at])
        new = {name: value for name, value in values[step].items() if _differs(columns[name], at, value)}
        if new:
            changed.append(step)
        for name, value in new.items():
            columns[name][0][at], columns[name][1][at] = value, True
        if "loss" in new and "perplexity" not in new:
            follows = perplexity(MetricColumn.of([new["loss"]]))
            columns["perplexity"][0][at], columns["perplexity"][1][at] = follows.values[0], follows.reported[0]
    metrics = {name: MetricColumn.of_arrays(*arrays) for name, arrays in columns.items()}
    return StepBlock(stored.segment, stored.steps, stored.times, metrics), changed


def _differs(column: tuple[Floats, Bools], at: int, value: float) -> bool:
    stored, is_reported = float(column[0][at]), bool(column[1][at])
    return not is_reported or not (stored == value or (stored != stored and value != value))
