"""Blocks whose values are moved out of the store, and back, and the comparison of both. The caller owns the
transaction, and has locked the run.

The steps of a block and their times stay: what is stored already, how long a run took and when it last reported are
known without the files.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db.lineage import StepRange, end_of
from db.models import Run
from db.steps import blocks, rollups, writer
from db.steps.archived.files import ArchivedFile
from db.steps.step_block import MetricColumn, RunRange, StepBlock, Target
from db.store import bulk
from lossguard.vocabulary.wording import plural

OF_SEGMENT = "run_pk = ? AND segment = ?"
BETWEEN = f"{OF_SEGMENT} AND first_step >= ? AND first_step <= ?"


def cut(session: Session, *, run: Run, segment: int, edges: Sequence[int]) -> None:
    """Let a block begin at each of these steps, where one holds the step."""
    target = Target(run.pk, segment, rollups.metric_numbers(session, run_pk=run.pk))
    for edge in edges:
        (found,) = blocks.find(session, [RunRange(run.pk, StepRange(segment, edge - 1, edge + 1))])
        for block in found:
            if block.first < edge <= block.last and block.archived_file is None:
                writer.split(session, target, block, edge)


def first_in_store(session: Session, *, run_pk: int, within: StepRange, max_steps: int) -> StepRange | None:
    """The first blocks of a range whose values are in the store, about `max_steps` steps; None without any.

    No archived block lies between them; the range begins and ends with a block.
    """
    segment, end = within.segment, end_of(within)
    bounds = f"{OF_SEGMENT} AND first_step >= ? AND first_step < ?"
    in_store = f"SELECT min(first_step) FROM step_blocks WHERE {bounds} AND archived_file IS NULL"
    ((first,),) = bulk.read(session, in_store, (run_pk, segment, within.first, end))
    if first is None:
        return None
    heads = f"SELECT last_step, num_steps, archived_file FROM step_blocks WHERE {bounds} ORDER BY first_step"
    last, left = first, max_steps
    rows = itertools.chain.from_iterable(bulk.read_chunks(session, heads, (run_pk, segment, first, end)))
    for block_last, num_steps, archived_file in rows:
        if archived_file is not None or (left < num_steps and left < max_steps):
            break
        last, left = block_last, left - num_steps
    return StepRange(segment, int(first), int(last) + 1)


def put_away(session: Session, *, run: Run, file: ArchivedFile) -> None:
    """Delete the values of the blocks that a file holds."""
    key = (run.pk, file.segment, file.first_step, file.last_step)
    held = f"{BETWEEN} AND archived_file IS NULL"
    ((num_steps,),) = bulk.read(session, f"SELECT COALESCE(sum(num_steps), 0) FROM step_blocks WHERE {held}", key)
    assert num_steps == file.num_steps, "the store holds other steps than were archived"
    bulk.run(session, f"UPDATE step_blocks SET archived_file = ? WHERE {held}", (file.id, *key))
    numbers = rollups.metric_numbers(session, run_pk=run.pk, names=[])
    if numbers:  # the metric comes before the step in the key
        among = ", ".join(map(str, numbers.values()))
        bulk.run(session, f"DELETE FROM block_values WHERE {BETWEEN} AND metric IN ({among})", key)


def put_back(session: Session, *, run: Run, file: ArchivedFile, steps: StepBlock) -> StepBlock:
    """Store the values of the blocks that a file still has: the steps that came back, as the store has them now.

    `steps` are those of the file. Blocks that were written anew since, with late steps or values, are in the store.
    """
    key = (run.pk, file.segment, file.first_step, file.last_step)
    held = f"{BETWEEN} AND archived_file = ?"
    columns = "first_step, last_step, num_steps, steps, times"
    found = bulk.read(session, f"SELECT {columns} FROM step_blocks WHERE {held} ORDER BY first_step", (*key, file.id))
    heads = [blocks.Block(*row) for row in found]
    target = Target(run.pk, file.segment, rollups.metric_numbers(session, run_pk=run.pk, names=list(steps.metrics)))
    writer.write_values(session, target, [_of_block(steps, head) for head in heads])
    bulk.run(session, f"UPDATE step_blocks SET archived_file = NULL WHERE {held}", (*key, file.id))
    stored = blocks.read_whole(session, target, file.first_step, file.last_step, list(steps.metrics))
    inside = [np.flatnonzero((stored.steps >= head.first) & (stored.steps <= head.last)) for head in heads]
    return stored.at(np.concatenate([np.empty(0, dtype=np.int64), *inside]))


def _of_block(steps: StepBlock, head: blocks.Block) -> StepBlock:
    part = steps.between(head.first, head.last + 1)
    assert len(part) == head.num_steps, "a block holds other steps than its file"
    return part


def difference(expected: StepBlock, found: StepBlock) -> str | None:
    """Return the first difference, as the end of a sentence; None without one. NaN payloads and signs of zero count."""
    if len(expected) != len(found):
        return f"{plural(len(found), 'step')} instead of {len(expected):,}"
    if expected.segment != found.segment:
        return f"segment {found.segment} instead of {expected.segment}"
    if not np.array_equal(expected.steps, found.steps):
        return "other steps"
    if not _same_bits(expected.times, found.times):
        return "other times"
    never = MetricColumn.unreported(len(expected))
    for name in sorted({*expected.metrics, *found.metrics}):
        one, other = expected.metrics.get(name, never), found.metrics.get(name, never)
        if not np.array_equal(one.reported, other.reported):
            return f"the metric {name!r} reported at other steps"
        if not _same_bits(one.values[one.reported], other.values[other.reported]):
            return f"other values of the metric {name!r}"
    return None


def _same_bits(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.array_equal(one.view(np.uint64), other.view(np.uint64))
