"""Stored steps as columns: frames, exports, charts, roll-ups and the detection all read them here.

N is the number of steps that are read together. Two statements read them: one the numeric columns, one the JSON cells,
which few steps have (metrics without a column of their own, and values that are not finite). The driver's rows become
arrays a few thousand at a time: the next ones then find their memory still warm, and the garbage collector has little
to look through.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db import bulk
from db.lineage import StepRange
from db.models import Run, Step
from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools, MetricColumn
from lossguard.metrics import COLUMNS
from lossguard.protocol import NON_FINITE

MAX_BLOCK_STEPS = 20_000
MAX_RANGES = 100
"""Ranges read by one statement: one SELECT of a UNION ALL each, of which SQLite takes at most 500."""

END = 2**63 - 1
FROM_STEPS = " FROM steps WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ?"

Cell = tuple[int, str | None, str | None]
"""A step, the JSON text of its values that are not finite, and that of its metrics without a column."""


@dataclass(frozen=True, slots=True)
class StepBlock:
    """Steps of one segment in their order; every column has the same length N."""

    segment: int
    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)

    def within(self, step_range: StepRange | None) -> Bools:
        """bool[N]: which of the steps are in the range; none without a range."""
        if step_range is None:
            return np.zeros(len(self), dtype=np.bool_)
        return (self.steps >= step_range.first) & (self.steps < _end(step_range))


@dataclass(frozen=True, slots=True)
class StepColumns:
    """Steps along a line; columns of equal length N. A metric that none of them reported is left out."""

    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)


def read_line(session: Session, *, run: Run, line: Sequence[StepRange], metrics: Sequence[str]) -> StepColumns:
    """These metrics along ranges that follow one another, in memory as a whole."""
    blocks = [
        block
        for step_range in line
        for block in read_blocks(session, run_pk=run.pk, step_range=step_range, metrics=metrics)
    ]
    joined = {name: MetricColumn.joined([block.metrics[name] for block in blocks]) for name in metrics}
    return StepColumns(
        steps=np.concatenate([np.empty(0, dtype=np.int64), *(block.steps for block in blocks)]),
        times=np.concatenate([np.empty(0), *(block.times for block in blocks)]),
        metrics={name: column for name, column in joined.items() if column.reported.any()},
    )


def read_blocks(
    session: Session, *, run_pk: int, step_range: StepRange, metrics: Sequence[str], max_steps: int = MAX_BLOCK_STEPS
) -> Iterator[StepBlock]:
    """The steps of a range with these metrics, at most `max_steps` at a time."""
    low = step_range.first
    while block := next_block(
        session, run_pk=run_pk, step_range=step_range, metrics=metrics, low=low, max_steps=max_steps
    ):
        yield block
        low = int(block.steps[-1]) + 1


def next_block(
    session: Session,
    *,
    run_pk: int,
    step_range: StepRange,
    metrics: Sequence[str],
    low: int,
    max_steps: int = MAX_BLOCK_STEPS,
) -> StepBlock | None:
    """The first `max_steps` steps of a range from step `low` on; None when there is none."""
    found = _first_steps(session, run_pk, step_range, low, max_steps)
    if found is None:
        return None
    bounds, count = found
    return _read(session, run_pk, [bounds], metrics, gapless=_end(bounds) - bounds.first == count)[0]


def read_ranges(
    session: Session, *, run_pk: int, ranges: Sequence[StepRange], metrics: Sequence[str]
) -> list[StepBlock]:
    """The steps of each of these ranges with these metrics, read together: in memory as a whole."""
    return [
        block
        for start in range(0, len(ranges), MAX_RANGES)
        for block in _read(session, run_pk, ranges[start : start + MAX_RANGES], metrics)
    ]


def metric_value(step: Step, name: str) -> float | None:
    """A metric of a stored step as it was reported, non-finite values included; None when it was not reported."""
    if step.non_finite and name in step.non_finite:
        return NON_FINITE[step.non_finite[name]]
    value: float | None = getattr(step, name) if name in COLUMNS else (step.extra or {}).get(name)
    return value


def _end(step_range: StepRange) -> int:
    return END if step_range.last is None else step_range.last


def _first_steps(
    session: Session, run_pk: int, step_range: StepRange, low: int, max_steps: int
) -> tuple[StepRange, int] | None:
    """(bounds, number) of the first steps from `low` on. Only the last block is counted: a count reads every row."""
    segment = step_range.segment
    values = (run_pk, segment, max(low, step_range.first), _end(step_range))
    ((first,),) = bulk.read(session, f"SELECT min(step){FROM_STEPS}", values)
    following = bulk.read(session, f"SELECT step{FROM_STEPS} ORDER BY step LIMIT 1 OFFSET ?", (*values, max_steps))
    if following:
        return StepRange(segment, first, following[0][0]), max_steps
    ((last, count),) = bulk.read(session, f"SELECT max(step), count(*){FROM_STEPS}", values)
    return (StepRange(segment, first, last + 1), count) if count else None


def _read(
    session: Session, run_pk: int, ranges: Sequence[StepRange], metrics: Sequence[str], *, gapless: bool = False
) -> list[StepBlock]:
    """One block for each range. `gapless`: the single range holds every step between its ends."""
    custom = [name for name in metrics if name not in COLUMNS]
    names = ["time", *(name for name in metrics if name in COLUMNS)]
    tables = _read_numbers(session, run_pk, ranges, names, gapless)
    cells = _read_cells(session, run_pk, ranges, with_extra=bool(custom))
    return [_block(*parts, metrics, custom) for parts in zip(ranges, tables, cells, strict=True)]


def _block(
    step_range: StepRange, table: NDArray[Any], cells: Sequence[Cell], metrics: Sequence[str], custom: Sequence[str]
) -> StepBlock:
    names = table.dtype.names or ()
    steps: Ints = table["step"].copy() if "step" in names else np.arange(step_range.first, _end(step_range))
    positions = np.searchsorted(steps, np.array([step for step, _, _ in cells], dtype=np.int64))
    values = {name: table[name].copy() for name in metrics if name in COLUMNS}
    values |= _custom(len(steps), positions, [extra for _, _, extra in cells], custom)
    marks = _marks(positions, [text for _, text, _ in cells])
    columns = {name: MetricColumn.from_stored(values[name], marks.get(name, {})) for name in metrics}
    return StepBlock(step_range.segment, steps, table["time"].copy(), columns)


def _read_numbers(
    session: Session, run_pk: int, ranges: Sequence[StepRange], names: Sequence[str], gapless: bool
) -> list[NDArray[Any]]:
    """A structured array for each range: these numeric columns, NaN where one is NULL, and the steps.

    Steps without a gap between them need not be read, which saves a third of the time.
    """
    kinds = [(name, np.float64) for name in names] + ([] if gapless else [("step", np.int64)])
    columns = bulk.quoted([name for name, _ in kinds])
    dtype = np.dtype(kinds if len(ranges) == 1 else [("range", np.int64), *kinds])
    chunks = [np.array(rows, dtype=dtype) for rows in _rows(session, run_pk, ranges, columns)]
    table = np.concatenate([np.empty(0, dtype=dtype), *chunks])
    if len(ranges) == 1:
        return [table]
    table = table[np.lexsort((table["step"], table["range"]))]  # a UNION has no order
    return np.split(table, np.searchsorted(table["range"], np.arange(1, len(ranges))))


def _read_cells(
    session: Session, run_pk: int, ranges: Sequence[StepRange], *, with_extra: bool
) -> Sequence[Sequence[Cell]]:
    """For each range: the steps that have JSON cells."""
    extra = bulk.json_text(session, "extra") if with_extra else "NULL"
    has_cells = " AND (non_finite IS NOT NULL OR extra IS NOT NULL)" if with_extra else " AND non_finite IS NOT NULL"
    found: list[list[Cell]] = [[] for _ in ranges]
    for rows in _rows(session, run_pk, ranges, ["step", bulk.json_text(session, "non_finite"), extra], has_cells):
        if len(ranges) == 1:
            found[0] += rows
        else:
            for number, *cell in rows:
                found[number].append(tuple(cell))
    return found


def _rows(
    session: Session, run_pk: int, ranges: Sequence[StepRange], columns: Sequence[str], condition: str = ""
) -> Iterator[Sequence[Any]]:
    """Rows, some at a time. Those of several ranges begin with the number of their range, and are in no order."""
    if len(ranges) == 1:
        statement = f"SELECT {', '.join(columns)}{FROM_STEPS}{condition} ORDER BY step"
    else:
        statement = " UNION ALL ".join(
            f"SELECT {number}, {', '.join(columns)}{FROM_STEPS}{condition}" for number in range(len(ranges))
        )
    values = [(run_pk, one.segment, one.first, _end(one)) for one in ranges]
    return bulk.read_chunks(session, statement, tuple(value for four in values for value in four))


def _custom(num_steps: int, positions: Ints, texts: Sequence[str | None], names: Sequence[str]) -> dict[str, Floats]:
    """The metrics of the JSON column, read digit by digit: SQLite's own conversion may be off by the last bit."""
    values = {name: np.full(num_steps, np.nan) for name in names}
    if not names or not texts:
        return values
    lines = "\n".join(text or "{}" for text in texts).encode()
    table = pyarrow.json.read_json(
        io.BytesIO(lines),
        read_options=pyarrow.json.ReadOptions(block_size=len(lines) + 1),  # a row must not be cut by a block's end
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.float64()) for name in names]), unexpected_field_behavior="ignore"
        ),
    )
    for name in names:
        values[name][positions] = _floats(table[name])
    return values


def _floats(column: pa.ChunkedArray) -> Floats:
    """float64[N] with NaN for null. Arrow's own conversion imports pandas: 50 MB that a collector does not need."""
    found = np.full(len(column), np.nan)
    start = 0
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            valid, data = chunk.buffers()
            values = np.frombuffer(data, dtype=np.float64, count=len(chunk), offset=8 * chunk.offset)
            found[start : start + len(chunk)] = np.where(_bits(valid, chunk), values, np.nan)
        start += len(chunk)
    return found


def _bits(valid: pa.Buffer | None, chunk: pa.Array) -> Bools:
    """bool[N]: which values of the chunk are not null, from the bitmap that Arrow has where any is."""
    if valid is None:
        return np.ones(len(chunk), dtype=np.bool_)
    bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")
    return bits[chunk.offset : chunk.offset + len(chunk)].astype(np.bool_)


def _marks(positions: Ints, texts: Sequence[str | None]) -> dict[str, dict[int, float]]:
    """Metric -> position -> the value that was not finite."""
    marks: dict[str, dict[int, float]] = {}
    for at, text in zip(positions.tolist(), texts, strict=True):
        for name, mark in json.loads(text or "{}").items():
            marks.setdefault(name, {})[at] = NON_FINITE[mark]
    return marks
