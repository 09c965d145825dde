"""Add metrics to steps that are stored, in rows and in blocks: what a client logs of a step after the step itself."""

from collections.abc import Iterator, Mapping, Sequence

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
    changed = [*_complete_rows(session, target, values), *_complete_blocks(session, target, values)]
    if changed:
        assert segment.last_step is not None
        rollups.rewrite(session, target, np.array(sorted(changed), dtype=np.int64), segment.last_step)
    return known


def _ranges(target: Target, values: LateValues) -> Iterator[Sequence[RunRange]]:
    """A range for each step, some at a time."""
    ranges = [RunRange(target.run_pk, StepRange(target.segment, step, step + 1)) for step in sorted(values)]
    for start in range(0, len(ranges), MAX_RANGES):
        yield ranges[start : start + MAX_RANGES]


def _complete_rows(session: Session, target: Target, values: LateValues) -> list[int]:
    """Write the rows of these steps anew: the steps of those that changed."""
    changed = []
    for ranges in _ranges(target, values):
        for row in reader.read_rows(session, ranges, list(target.numbers), {target.run_pk: target.numbers}):
            completed, steps = _completed(row, values)
            for step in steps:
                key = (target.run_pk, target.segment, step)
                bulk.run(session, "DELETE FROM steps WHERE run_pk = ? AND segment = ? AND step = ?", key)
                insert_rows(session, target, completed)
                changed.append(step)
    return changed


def _complete_blocks(session: Session, target: Target, values: LateValues) -> list[int]:
    """Write the blocks of these steps anew: the steps that changed."""
    changed = []
    for ranges in _ranges(target, values):
        found = {block.first: block for some in blocks.find(session, ranges) for block in some}
        for block in found.values():
            stored = blocks.read_whole(session, target, block.first, block.last)
            completed, steps = _completed(stored, {one.steps.first: values[one.steps.first] for one in ranges})
            if steps:
                writer.rewrite(session, target, block, completed)
                changed += steps
    return changed


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
            columns["perplexity"][0][at] = follows.values[0] if follows.reported[0] else np.nan
            columns["perplexity"][1][at] = follows.reported[0]
    metrics = {name: MetricColumn.of_arrays(*arrays) for name, arrays in columns.items()}
    return StepBlock(stored.segment, stored.steps, stored.times, metrics), changed


def _differs(column: tuple[Floats, Bools], at: int, value: float) -> bool:
    stored, is_reported = float(column[0][at]), bool(column[1][at])
    return not is_reported or not (stored == value or (stored != stored and value != value))
