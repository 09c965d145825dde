"""The blocks of `step_blocks` and `block_values`: hundreds of steps of a segment, each metric in a row of its own.

Blocks of a segment do not overlap, so the one that holds a step is the last one that begins at or before it. One metric
is one range of the key of `block_values`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import END, StepRange, end_of
from db.steps.archived import reading
from db.steps.codec import DamagedBlock, decode_bits, decode_floats, decode_steps
from db.steps.step_block import Floats, Ints, MetricColumn, RunRange, StepBlock, Target
from db.store import bulk
from db.store.engine import reading_anew

MANY = 64
"""Blocks whose numbers are read at a time, to find where so many steps end."""

OVERLAPS = (
    "run_pk = ? AND segment = ? AND first_step < ? AND last_step >= ? AND first_step >= COALESCE((SELECT"
    " max(first_step) FROM step_blocks WHERE run_pk = ? AND segment = ? AND first_step <= ?), 0)"
)
"""Conditions for the blocks of a range. The last one bounds what is read of the key from below."""

Item = TypeVar("Item")
Found = TypeVar("Found")
Stored = Mapping[tuple[int, int], tuple[bytes, bytes | None]]
"""(number of a metric, first step of a block) -> values and mask of a row of `block_values`."""


@dataclass(frozen=True, slots=True)
class Block:
    """A row of `step_blocks`."""

    first: int
    last: int
    num_steps: int
    stored_steps: bytes | None
    stored_times: bytes | None
    """Encoded times; None if they were not read."""
    archived_file: int | None = None
    """`db.steps.archived.files.ArchivedFile.id` where a file outside the store has its values."""

    @property
    def steps(self) -> Ints:
        """int64[num_steps]. Raises DamagedBlock."""
        if self.stored_steps is None:
            return np.arange(self.first, self.last + 1)
        return decode_steps(self.stored_steps, self.num_steps)

    @property
    def times(self) -> Floats:
        """float64[num_steps], in unix seconds; NaN where they were not read. Raises DamagedBlock."""
        if self.stored_times is None:
            return np.full(self.num_steps, np.nan)
        return decode_floats(self.stored_times, self.num_steps)


def _overlapping(run_pk: int, step_range: StepRange) -> tuple[Any, ...]:
    """The values of the parameters of OVERLAPS."""
    segment, first = step_range.segment, step_range.first
    return (run_pk, segment, end_of(step_range), first, run_pk, segment, first)


def end_of_block(session: Session, run_pk: int, step_range: StepRange) -> int:
    """The step after the first block of a range, at most the end of the range."""
    statement = f"SELECT last_step FROM step_blocks WHERE {OVERLAPS} ORDER BY first_step LIMIT 1"
    found = bulk.read(session, statement, _overlapping(run_pk, step_range))
    return min(int(found[0][0]) + 1 if found else END, end_of(step_range))


def end_of_first(session: Session, run_pk: int, step_range: StepRange, max_steps: int) -> int:
    """The step before which the blocks of a range hold `max_steps` steps or more; END where there are no more of them.

    The first block may begin before the range: it is not counted.
    """
    low, count = step_range.first, None
    while True:
        statement = f"SELECT last_step, num_steps FROM step_blocks WHERE {OVERLAPS} ORDER BY first_step LIMIT {MANY}"
        found = bulk.read(session, statement, _overlapping(run_pk, StepRange(step_range.segment, low, step_range.last)))
        for last, num_steps in found:
            count = 0 if count is None else count + num_steps
            if count >= max_steps:
                return int(last) + 1
        if len(found) < MANY:
            return END
        low = int(found[-1][0]) + 1


def read_blocks(
    session: Session,
    ranges: Sequence[RunRange],
    metrics: Sequence[str],
    numbers: Mapping[int, Mapping[str, int]],
    *,
    with_times: bool = True,
) -> list[StepBlock]:
    """Read the steps in blocks of each range together. `numbers`: those of the metrics, by run and name.

    Without times these are NaN. Raises DamagedBlock.
    """
    found = find(session, ranges, with_times=with_times)
    stored = _read_values(session, ranges, found, numbers)
    return [
        _as_step_block(session, one, blocks, values, numbers[one.run_pk], metrics)
        for one, blocks, values in zip(ranges, found, stored, strict=True)
    ]


def read_whole(
    session: Session, target: Target, first: int, last: int, metrics: Sequence[str] | None = None
) -> StepBlock:
    """The steps `first` to `last` of a segment that are in blocks, with these metrics; None: all. Raises
    DamagedBlock."""
    steps = RunRange(target.run_pk, StepRange(target.segment, first, last + 1))
    names = list(target.numbers) if metrics is None else metrics
    (found,) = read_blocks(session, [steps], names, {target.run_pk: target.numbers})
    return found


def read_steps(session: Session, run_pk: int, step_range: StepRange) -> Ints:
    """The numbers of the steps of a range that are in blocks. Raises DamagedBlock."""
    (blocks,) = find(session, [RunRange(run_pk, step_range)], with_times=False)
    parts = [np.empty(0, dtype=np.int64)]
    for block in blocks:
        with naming(session, run_pk, step_range.segment, block):
            parts.append(block.steps)
    steps = np.concatenate(parts)
    return steps[(steps >= step_range.first) & (steps < end_of(step_range))]


def find(session: Session, ranges: Sequence[RunRange], *, with_times: bool = True) -> list[list[Block]]:
    """The blocks that overlap each range, in their order."""
    times = "times" if with_times else "NULL"
    columns = f"first_step, last_step, num_steps, steps, {times}, archived_file"
    statement = " UNION ALL ".join(
        f"SELECT {index} AS position, {columns} FROM step_blocks WHERE {OVERLAPS}" for index in range(len(ranges))
    )
    values = tuple(value for one in ranges for value in _overlapping(*one))
    found: list[list[Block]] = [[] for _ in ranges]
    for rows in bulk.read_chunks(session, f"{statement} ORDER BY position, first_step", values) if ranges else ():
        for index, *block in rows:
            found[index].append(Block(*block))
    return found


def metric_numbers(session: Session, run_pks: Collection[int], metrics: Collection[str]) -> dict[int, dict[str, int]]:
    """Return the numbers of these metrics by run and name."""
    numbers: dict[int, dict[str, int]] = {run_pk: {} for run_pk in run_pks}
    if run_pks and metrics:
        statement = f"SELECT run_pk, name, number FROM metrics WHERE run_pk IN ({', '.join(map(str, run_pks))})"
        wanted = set(metrics)
        for run_pk, name, number in bulk.read(session, statement, ()):
            if name in wanted:
                numbers[run_pk][name] = number
    return numbers


def _read_values(
    session: Session,
    ranges: Sequence[RunRange],
    blocks: Sequence[Sequence[Block]],
    numbers: Mapping[int, Mapping[str, int]],
) -> list[Stored]:
    """Return what is stored of the blocks of each range."""
    found: list[dict[tuple[int, int], tuple[bytes, bytes | None]]] = [{} for _ in ranges]
    selects, values = [], []
    for index, (one, some) in enumerate(zip(ranges, blocks, strict=True)):
        in_store = any(block.archived_file is None for block in some)
        if in_store and (among := ", ".join(map(str, numbers[one.run_pk].values()))):
            selects.append(
                f'SELECT {index}, metric, first_step, "values", reported FROM block_values WHERE run_pk = ?'
                f" AND segment = ? AND metric IN ({among}) AND first_step >= ? AND first_step <= ?"
            )
            values += [one.run_pk, one.steps.segment, some[0].first, some[-1].first]
    for rows in bulk.read_chunks(session, " UNION ALL ".join(selects), tuple(values)) if selects else ():
        for index, metric, first, values_of_block, reported in rows:
            found[index][metric, first] = values_of_block, reported
    return list(found)


def _as_step_block(
    session: Session,
    one: RunRange,
    blocks: Sequence[Block],
    stored: Stored,
    numbers: Mapping[str, int],
    metrics: Sequence[str],
) -> StepBlock:
    archived = _read_archived(session, one, blocks, numbers)
    try:
        whole = StepBlock(
            one.steps.segment,
            np.concatenate([np.empty(0, dtype=np.int64), *(block.steps for block in blocks)]),
            np.concatenate([np.empty(0), *(block.times for block in blocks)]),
            {name: _column(name, numbers.get(name, -1), blocks, stored, archived) for name in metrics},
        )
    except DamagedBlock:
        _raise_first(session, one, blocks, stored, numbers.values())
        raise
    return whole.between(one.steps.first, end_of(one.steps))


def _read_archived(
    session: Session, one: RunRange, blocks: Sequence[Block], numbers: Mapping[str, int]
) -> dict[int, Mapping[str, MetricColumn]]:
    """First step of a block -> these metrics of it, for the blocks whose values are archived."""
    wanted = [
        reading.Wanted(some.archived_file, some.first, some.last) for some in blocks if some.archived_file is not None
    ]
    if not (wanted and numbers):
        return {}
    try:
        return reading.read_blocks(session, segment=one.steps.segment, wanted=wanted, metrics=list(numbers))
    except reading.FileGone as gone:
        archived = [block for block in blocks if block.archived_file is not None]
        return _read_anew(session, one, archived, numbers, gone)


def _read_anew(
    session: Session, one: RunRange, blocks: Sequence[Block], numbers: Mapping[str, int], gone: reading.FileGone
) -> dict[int, Mapping[str, MetricColumn]]:
    """Read steps whose file was removed since the session's snapshot, because the steps were brought back.

    A reported value never changes, so it is what the snapshot would give. Raises UnreadableArchive where the file is
    lost, or the run was deleted.
    """
    whole = RunRange(one.run_pk, StepRange(one.steps.segment, blocks[0].first, blocks[-1].last + 1))
    with reading_anew(session) as now:
        (found,) = find(now, [whole], with_times=False)
        if not found:
            raise reading.UnreadableArchive(f"{gone.what}: the run was deleted meanwhile") from gone
        if {block.archived_file for block in found} & {block.archived_file for block in blocks}:
            raise gone
        (steps,) = read_blocks(now, [whole], list(numbers), {one.run_pk: numbers}, with_times=False)
    return {block.first: steps.at(np.searchsorted(steps.steps, block.steps)).metrics for block in blocks}


def _column(
    name: str, number: int, blocks: Sequence[Block], stored: Stored, archived: Mapping[int, Mapping[str, MetricColumn]]
) -> MetricColumn:
    """A metric over all steps of the blocks."""
    num_steps = sum(block.num_steps for block in blocks)
    values, reported = np.full(num_steps, np.nan), np.zeros(num_steps, dtype=np.bool_)
    start = 0
    for block in blocks:
        if found := stored.get((number, block.first)):
            part = slice(start, start + block.num_steps)
            values_of_block, mask = found
            if mask is None:
                values[part], reported[part] = decode_floats(values_of_block, block.num_steps), True
            else:
                reported[part] = decode_bits(mask, block.num_steps)
                positions = np.flatnonzero(reported[part])
                values[start + positions] = decode_floats(values_of_block, len(positions))
        elif column := archived.get(block.first, {}).get(name):
            part = slice(start, start + block.num_steps)
            values[part], reported[part] = column.values, column.reported
        start += block.num_steps
    return MetricColumn.of_arrays(values, reported)


def _raise_first(
    session: Session, one: RunRange, blocks: Sequence[Block], stored: Stored, numbers: Collection[int]
) -> None:
    """Raise DamagedBlock for the first of these blocks that is damaged."""
    for block in blocks:
        with naming(session, one.run_pk, one.steps.segment, block):
            _ = block.steps, block.times
            for number in numbers:
                if (number, block.first) in stored:
                    _column("", number, [block], stored, {})


@contextmanager
def naming(session: Session, run_pk: int, segment: int, block: Block) -> Iterator[None]:
    """Let the error of a damaged block say which one it is, and what to do."""
    try:
        yield
    except DamagedBlock as error:
        ((run_id,),) = bulk.read(session, "SELECT id FROM runs WHERE pk = ?", (run_pk,))
        raise DamagedBlock(
            f"a block of run {run_id!r}, segment {segment}, steps {block.first} to {block.last}, is damaged: {error}; "
            "restore the store from a backup, or delete the run"
        ) from None


def missing(run_id: str, metric: str, segment: int, first: int, last: int) -> DamagedBlock:
    """The error about values that the roll-ups count and the blocks lack; it says what to do."""
    return DamagedBlock(
        f"the values of {metric} of run {run_id!r}, segment {segment}, steps {first} to {last}, are missing; restore "
        "the store from a backup, or delete the run"
    )


def without_damaged(
    read: Callable[[Sequence[Item]], Mapping[int, Found]], items: Sequence[Item]
) -> Mapping[int, Found]:
    """Return what `read` finds of some runs, without the runs of which it needs a damaged block."""
    try:
        return read(items)
    except DamagedBlock:
        half = len(items) // 2
        if not half:
            return {}
        return {**without_damaged(read, items[:half]), **without_damaged(read, items[half:])}
