"""Make blocks of steps: of reports as they come, and of rows that are stored already.

A segment keeps its newest steps as rows until they are `PACK_AT`; then they become a block, in the
transaction of the report that brings the last of them. A report of so many steps becomes a block at once. Steps that
arrive after their successors stay rows until the next block is made: then they join the blocks that they belong in.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import BlockValues, Segment, StoredBlock
from db.steps import blocks, loose_rows
from db.steps.block_codec import encode_bits, encode_floats, encode_steps
from db.steps.blocks import Block
from db.steps.step_block import RunRange, StepBlock, Target, merged
from db.store import bulk, partitions
from lossguard.vocabulary.metrics import COUNTS

PACK_AT = 512
"""Rows of a segment that become a block. Larger blocks are no lighter, and smaller ones take longer to read."""
MAX_BLOCK_STEPS = 1024
SMALL = 256
"""Fewer steps than this behind a block join it instead of making one of their own."""


def becomes_block(segment: Segment, num_new: int) -> bool:
    """True if `num_new` steps that the segment does not count yet become a block, with its rows."""
    return segment.num_steps - segment.num_packed + num_new >= PACK_AT


def store(session: Session, segment: Segment, numbers: Mapping[str, int], new: StepBlock, *, soon: bool) -> None:
    """Store steps, and the rows of the segment, in blocks. Call `commands.grow_segment` afterwards.

    `soon`: the segment is written as by `bulk.update_soon`.
    """
    _make_partition(session, segment)
    target, num_rows = Target(segment.run_pk, segment.number, numbers), segment.num_steps - segment.num_packed
    if num_rows > 0:
        pack(session, target, merged([new, _take_rows(session, segment, numbers)]))
    elif segment.last_step is None or new.steps[0] > segment.last_step:  # behind all blocks: none is asked for
        _write(session, target, new)
    else:
        pack(session, target, new)
    num_packed = segment.num_steps + len(new)
    if soon:
        bulk.update_soon(session, segment, {"num_packed": num_packed})
    else:
        segment.num_packed = num_packed


def pack_rows(session: Session, segment: Segment, numbers: Mapping[str, int]) -> int:
    """Pack the rows of a segment, of which there are few: how many there were. The caller has locked the run."""
    _make_partition(session, segment)
    rows = _take_rows(session, segment, numbers)
    if len(rows):
        pack(session, Target(segment.run_pk, segment.number, numbers), rows)
    segment.num_packed = segment.num_steps
    return len(rows)


def _make_partition(session: Session, segment: Segment) -> None:
    """Make the partition before the first block: somebody may have dropped it."""
    if not segment.num_packed:
        partitions.make_for(session, segment.run_pk)


def _take_rows(session: Session, segment: Segment, numbers: Mapping[str, int]) -> StepBlock:
    """The rows of the segment, which are deleted."""
    everything = RunRange(segment.run_pk, StepRange(segment.number, 0, None))
    (rows,) = loose_rows.read_rows(session, [everything], list(numbers), {segment.run_pk: numbers})
    key = (segment.run_pk, segment.number)
    bulk.run(session, "DELETE FROM steps WHERE run_pk = ? AND segment = ?", key)
    return rows


def pack(session: Session, target: Target, new: StepBlock) -> None:
    """Put steps that are in no block into blocks; those that they fall into are written anew."""
    behind = StepRange(target.segment, int(new.steps[0]), None)
    (known,) = blocks.find(session, [RunRange(target.run_pk, behind)])
    home = np.searchsorted([block.first for block in known], new.steps, side="right") - 1
    for at in np.unique(home).tolist():
        part = new.at(np.flatnonzero(home == at))
        if at >= 0 and not _stands_alone(part, known[at]):
            part = merged([_take(session, target, known[at]), part])
        _write(session, target, part)


def rewrite(session: Session, target: Target, block: Block, changed: StepBlock) -> None:
    """Replace a block; `changed` has every metric of it."""
    _delete(session, target, block)
    _write(session, target, changed)


def split(session: Session, target: Target, block: Block, edge: int) -> None:
    """Let a second block begin at step `edge`, within a block."""
    steps = _take(session, target, block)
    at = int(np.searchsorted(steps.steps, edge))
    for part in (steps.at(slice(at)), steps.at(slice(at, None))):
        if len(part):
            _write(session, target, part)


def _stands_alone(part: StepBlock, block: Block) -> bool:
    """An archived block is left alone where it can be: its values would have to be fetched."""
    return int(part.steps[0]) > block.last and (len(part) >= SMALL or block.archived_file is not None)


def _take(session: Session, target: Target, block: Block) -> StepBlock:
    """The steps of a block, which is deleted."""
    steps = StepRange(target.segment, block.first, block.last + 1)
    whole, numbers = [RunRange(target.run_pk, steps)], {target.run_pk: target.numbers}
    (found,) = blocks.read_blocks(session, whole, list(target.numbers), numbers)
    _delete(session, target, block)
    return found


def _delete(session: Session, target: Target, block: Block) -> None:
    among = ", ".join(map(str, target.numbers.values()))
    key = (target.run_pk, target.segment, block.first)
    if among:
        condition = f"run_pk = ? AND segment = ? AND first_step = ? AND metric IN ({among})"
        bulk.run(session, f"DELETE FROM block_values WHERE {condition}", key)
    bulk.run(session, "DELETE FROM step_blocks WHERE run_pk = ? AND segment = ? AND first_step = ?", key)


def _write(session: Session, target: Target, steps: StepBlock) -> None:
    same = {"run_pk": target.run_pk, "segment": target.segment}
    parts = list(_split(steps))
    bulk.insert(session, StoredBlock, same | _columns([_block_row(part) for part in parts]))
    write_values(session, target, parts)


def write_values(session: Session, target: Target, parts: Sequence[StepBlock]) -> None:
    """Store the values of blocks, each given whole."""
    if values := [row for part in parts for row in _value_rows(target, part)]:
        same = {"run_pk": target.run_pk, "segment": target.segment}
        bulk.insert(session, BlockValues, same | _columns(values))


def _split(steps: StepBlock) -> Iterator[StepBlock]:
    """Split the steps into blocks of equal size."""
    num_parts = -(-len(steps) // MAX_BLOCK_STEPS)
    edges = [len(steps) * part // num_parts for part in range(num_parts + 1)]
    for first, last in itertools.pairwise(edges):
        yield steps.at(slice(first, last))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


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
    for name, given in part.metrics.items():
        column = given.whole() if name in COUNTS else given
        if column.reported.all():
            values, reported = column.values, None
        elif column.reported.any():
            values, reported = column.values[column.reported], encode_bits(column.reported)
        else:
            continue
        yield {
            "metric": target.numbers[name],
            "first_step": int(part.steps[0]),
            "values": encode_floats(values),
            "reported": reported,
        }
