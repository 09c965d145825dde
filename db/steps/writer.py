"""Store step reports: as rows, and as blocks once a segment has enough of them; and add metrics to stored steps.

A segment keeps its newest steps as rows until they are `PACK_AT`; then they become a block, in the transaction of the
report that brings the last of them. A report of so many steps becomes a block at once. Steps that arrive after their
successors stay rows until the next block is made: then they join the blocks that they belong in.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import BlockValues, Run, Segment, Step, StoredBlock
from db.steps import blocks, reader, rollups
from db.steps.blocks import Block
from db.steps.codec import encode_bits, encode_floats, encode_rows, encode_steps
from db.steps.rollups import OpenBucket
from db.steps.step_block import Bools, Floats, MetricColumn, RunRange, StepBlock, Target, merged, perplexity
from db.store import bulk, partitions
from lossguard.vocabulary.metrics import COUNTS

PACK_AT = 512
"""Rows of a segment that become a block. Larger blocks are no lighter, and smaller ones take longer to read."""
MAX_BLOCK_STEPS = 1024
SMALL = 256
"""Fewer steps than this behind a block join it instead of making one of their own."""

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
    segment: Segment,
    steps: Sequence[int],
    times: Sequence[float],
    metrics: Mapping[str, Column | MetricColumn],
    max_metrics: int | None = None,
    kept: WriterState | None = None,
    soon: bool = False,
) -> WriterState:
    """Store new steps of a segment, count them there, and update the roll-ups.

    `steps` rise. `metrics` holds columns of the same length, with None where a metric was not reported. `kept` is what
    the last call for the run returned, if the caller has it. `soon` writes the rows and the segment together with those
    of other calls in this transaction, see `bulk.insert_soon`. Raises rollups.TooManyMetrics when the run would have
    more than `max_metrics`.
    """
    kept = kept or WriterState({})
    if not steps:
        return kept
    columns = {name: _as_stored(name, given) for name, given in metrics.items()}
    if "loss" in columns and "perplexity" not in columns:
        columns["perplexity"] = perplexity(columns["loss"])
    run_pk, number, first, last = segment.run_pk, segment.number, segment.first_step, segment.last_step
    numbers = rollups.metric_numbers(session, run_pk=run_pk, names=columns, limit=max_metrics, known=kept.numbers)
    new = StepBlock(number, np.array(steps, dtype=np.int64), np.array(times, dtype=np.float64), columns)
    target = Target(run_pk, number, numbers)
    if segment.num_steps - segment.num_packed + len(new) >= PACK_AT:
        _store_in_blocks(session, segment, target, new, soon=soon)
    else:
        insert_rows(session, target, new, soon=soon)
    open_bucket = rollups.grow(session, target, new, before=last, open_bucket=kept.open_bucket)
    grown = {
        "first_step": steps[0] if first is None else min(steps[0], first),
        "last_step": steps[-1] if last is None else max(steps[-1], last),
        "num_steps": segment.num_steps + len(steps),
    }
    _set(session, segment, grown, soon=soon)
    return WriterState(numbers, open_bucket)


def _set(session: Session, segment: Segment, values: Mapping[str, int], *, soon: bool) -> None:
    """Set these columns of a segment; `soon`: see `bulk.update_soon`."""
    if soon:
        bulk.update_soon(session, segment, values)
    else:
        for name, value in values.items():
            setattr(segment, name, value)


def _as_stored(name: str, given: Column | MetricColumn) -> MetricColumn:
    """The values that the store gives back: those that the roll-ups must hold."""
    column = given if isinstance(given, MetricColumn) else MetricColumn.of(given)
    return column.whole() if name in COUNTS else column


def insert_rows(session: Session, target: Target, new: StepBlock, *, soon: bool = False) -> None:
    """Insert a row for each step; `soon`: see `bulk.insert_soon`."""
    insert = bulk.insert_soon if soon else bulk.insert
    rows = {"run_pk": target.run_pk, "segment": new.segment, "step": new.steps.tolist(), "time": new.times.tolist()}
    insert(session, Step, rows | {"values": encode_rows(new, target.numbers)})


def _store_in_blocks(session: Session, segment: Segment, target: Target, new: StepBlock, *, soon: bool) -> None:
    """Store steps, and the rows of the segment, in blocks. `soon`: write the segment as by `bulk.update_soon`."""
    _make_partition(session, segment)
    if segment.num_steps > segment.num_packed:
        _pack(session, target, merged([new, _take_rows(session, target)]))
    elif segment.last_step is None or new.steps[0] > segment.last_step:  # behind all blocks: none is asked for
        _write(session, target, new)
    else:
        _pack(session, target, new)
    _set(session, segment, {"num_packed": segment.num_steps + len(new)}, soon=soon)


def pack_rows(session: Session, segment: Segment, numbers: Mapping[str, int]) -> int:
    """Pack the rows of a segment, of which there are few: how many there were. The caller has locked the run."""
    _make_partition(session, segment)
    target = Target(segment.run_pk, segment.number, numbers)
    rows = _take_rows(session, target)
    if len(rows):
        _pack(session, target, rows)
    segment.num_packed = segment.num_steps
    return len(rows)


def _make_partition(session: Session, segment: Segment) -> None:
    """Make the partition before the first block: somebody may have dropped it."""
    if not segment.num_packed:
        partitions.make_for(session, segment.run_pk)


def _take_rows(session: Session, target: Target) -> StepBlock:
    """The rows of the segment, which are deleted."""
    everything = RunRange(target.run_pk, StepRange(target.segment, 0, None))
    (rows,) = reader.read_rows(session, [everything], list(target.numbers), {target.run_pk: target.numbers})
    bulk.run(session, "DELETE FROM steps WHERE run_pk = ? AND segment = ?", (target.run_pk, target.segment))
    return rows


def _pack(session: Session, target: Target, new: StepBlock) -> None:
    """Put steps that are in no block into blocks; those that they fall into are written anew."""
    behind = StepRange(target.segment, int(new.steps[0]), None)
    (known,) = blocks.find(session, [RunRange(target.run_pk, behind)])
    home = np.searchsorted([block.first for block in known], new.steps, side="right") - 1
    for at in np.unique(home).tolist():
        part = new.at(np.flatnonzero(home == at))
        if at >= 0:
            # An archived block is left alone where it can be: its values would have to be fetched.
            is_enough = len(part) >= SMALL or known[at].archived_file is not None
            stands_alone = is_enough and int(part.steps[0]) > known[at].last
            if not stands_alone:
                part = merged([_take(session, target, known[at]), part])
        _write(session, target, part)


def split(session: Session, target: Target, block: Block, edge: int) -> None:
    """Let a second block begin at step `edge`, within a block."""
    steps = _take(session, target, block)
    at = int(np.searchsorted(steps.steps, edge))
    for part in (steps.at(slice(at)), steps.at(slice(at, None))):
        if len(part):
            _write(session, target, part)


def _take(session: Session, target: Target, block: Block) -> StepBlock:
    """The steps of a block, which is deleted."""
    found = blocks.read_whole(session, target, block.first, block.last)
    _delete(session, target, block)
    return found


def _delete(session: Session, target: Target, block: Block) -> None:
    condition, key = "run_pk = ? AND segment = ? AND first_step = ?", (target.run_pk, target.segment, block.first)
    if target.numbers:
        among = ", ".join(map(str, target.numbers.values()))
        bulk.run(session, f"DELETE FROM block_values WHERE {condition} AND metric IN ({among})", key)
    bulk.run(session, f"DELETE FROM step_blocks WHERE {condition}", key)


def _write(session: Session, target: Target, steps: StepBlock) -> None:
    """Store the steps in blocks of equal size."""
    num_parts = -(-len(steps) // MAX_BLOCK_STEPS)
    edges = [len(steps) * part // num_parts for part in range(num_parts + 1)]
    parts = [steps.at(slice(first, last)) for first, last in itertools.pairwise(edges)]
    _insert(session, StoredBlock, target, [_block_row(part) for part in parts])
    write_values(session, target, parts)


def write_values(session: Session, target: Target, parts: Sequence[StepBlock]) -> None:
    """Store the values of blocks, each given whole."""
    if rows := [row for part in parts for row in _value_rows(target, part)]:
        _insert(session, BlockValues, target, rows)


def _insert(
    session: Session, table: type[StoredBlock | BlockValues], target: Target, rows: Sequence[Mapping[str, Any]]
) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    bulk.insert(session, table, {"run_pk": target.run_pk, "segment": target.segment} | columns)


def _block_row(part: StepBlock) -> dict[str, Any]:
    first, last = int(part.steps[0]), int(part.steps[-1])
    is_gapless = last - first + 1 == len(part)
    return {
        "first_step": first,
        "last_step": last,
        "num_steps": len(part),
        "steps": None if is_gapless else encode_steps(part.steps),
        "times": encode_floats(part.times),
    }


def _value_rows(target: Target, part: StepBlock) -> Iterator[dict[str, Any]]:
    first = int(part.steps[0])
    for name, given in part.metrics.items():
        column = given.whole() if name in COUNTS else given
        if column.reported.any():
            is_always = column.reported.all()
            yield {
                "metric": target.numbers[name],
                "first_step": first,
                "values": encode_floats(column.values if is_always else column.values[column.reported]),
                "reported": None if is_always else encode_bits(column.reported),
            }


# What a client logs of a step after the step itself

LateValues = Mapping[int, Mapping[str, float]]
"""Step -> metric -> value."""


def complete_steps(
    session: Session, *, run: Run, segment: Segment, values: LateValues, numbers: Mapping[str, int]
) -> dict[str, int]:
    """Add metrics to stored steps, in rows and in blocks, and update the roll-ups: the numbers of the run's metrics.

    A value that differs replaces the stored one.
    """
    names = sorted({name for metrics in values.values() for name in metrics})
    names += ["perplexity"] if "loss" in names and "perplexity" not in names else []
    known = rollups.metric_numbers(session, run_pk=run.pk, names=names, known=numbers)
    target = Target(run.pk, segment.number, known)
    wanted = [RunRange(run.pk, StepRange(segment.number, step, step + 1)) for step in sorted(values)]
    changed: list[int] = []
    for start in range(0, len(wanted), reader.MAX_RANGES):
        some = wanted[start : start + reader.MAX_RANGES]
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
                _delete(session, target, block)
                _write(session, target, completed)
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
