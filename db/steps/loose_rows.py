"""The rows of `steps`: the newest steps of a segment, late ones, and those of stores that were never packed.

Two statements read them: one the numeric columns, one the JSON cells, which few steps have (metrics without a column of
their own, and values that are not finite). The driver's rows become arrays a few thousand at a time: the next ones then
find their memory still warm, and the garbage collector has little to look through.
"""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.steps.arrow_columns import floats
from db.steps.buckets import Floats, Ints
from db.steps.columns import MetricColumn
from db.steps.step_block import RunRange, StepBlock, end_of
from db.store import bulk
from lossguard.vocabulary.metrics import COLUMNS
from lossguard.vocabulary.protocol import NON_FINITE

log = logging.getLogger(__name__)

FROM_STEPS = " FROM steps WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ?"

Cell = tuple[int, str | None, str | None]
"""A step, the JSON text of its values that are not finite, and that of its metrics without a column."""


def first_rows(
    session: Session, run_pk: int, step_range: StepRange, low: int, max_steps: int
) -> tuple[StepRange, int] | None:
    """(bounds, number) of the first rows from step `low` on; None without any.

    Only rows up to the end of the range are counted, where fewer are left: a count reads every one of them.
    """
    segment = step_range.segment
    values = (run_pk, segment, max(low, step_range.first), end_of(step_range))
    ((first,),) = bulk.read(session, f"SELECT min(step){FROM_STEPS}", values)
    following = bulk.read(session, f"SELECT step{FROM_STEPS} ORDER BY step LIMIT 1 OFFSET ?", (*values, max_steps))
    if following:
        return StepRange(segment, first, following[0][0]), max_steps
    ((last, count),) = bulk.read(session, f"SELECT max(step), count(*){FROM_STEPS}", values)
    return (StepRange(segment, first, last + 1), count) if count else None


def read_rows(
    session: Session, ranges: Sequence[RunRange], metrics: Sequence[str], *, gapless: bool = False
) -> list[StepBlock]:
    """The rows of each range, read together. `gapless`: the single range holds every step between its ends."""
    custom = [name for name in metrics if name not in COLUMNS]
    names = ["time", *(name for name in metrics if name in COLUMNS)]
    tables = _read_numbers(session, ranges, names, gapless)
    cells = _read_cells(session, ranges, with_extra=bool(custom))
    return [_block(*parts, metrics, custom) for parts in zip([one.steps for one in ranges], tables, cells, strict=True)]


def read_steps(session: Session, run_pk: int, step_range: StepRange) -> Ints:
    """The numbers of the rows of a range."""
    values = (run_pk, step_range.segment, step_range.first, end_of(step_range))
    found = bulk.read(session, f"SELECT step{FROM_STEPS} ORDER BY step", values)
    return np.array([step for (step,) in found], dtype=np.int64)


def _block(
    step_range: StepRange, table: NDArray[Any], cells: Sequence[Cell], metrics: Sequence[str], custom: Sequence[str]
) -> StepBlock:
    names = table.dtype.names or ()
    steps: Ints = table["step"].copy() if "step" in names else np.arange(step_range.first, end_of(step_range))
    positions = np.searchsorted(steps, np.array([step for step, _, _ in cells], dtype=np.int64))
    values = {name: table[name].copy() for name in metrics if name in COLUMNS}
    values |= _custom(len(steps), positions, [extra for _, _, extra in cells], custom)
    marks = _marks(positions, [text for _, text, _ in cells])
    columns = {name: MetricColumn.from_stored(values[name], marks.get(name, {})) for name in metrics}
    return StepBlock(step_range.segment, steps, table["time"].copy(), columns)


def _read_numbers(
    session: Session, ranges: Sequence[RunRange], names: Sequence[str], gapless: bool
) -> list[NDArray[Any]]:
    """A structured array for each range: these numeric columns, NaN where one is NULL, and the steps.

    Steps without a gap between them need not be read, which saves a third of the time.
    """
    kinds = [(name, np.float64) for name in names] + ([] if gapless else [("step", np.int64)])
    columns = bulk.quoted([name for name, _ in kinds])
    dtype = np.dtype(kinds if len(ranges) == 1 else [("range", np.int64), *kinds])
    chunks = [np.array(rows, dtype=dtype) for rows in _rows(session, ranges, columns)]
    table = np.concatenate([np.empty(0, dtype=dtype), *chunks])
    if len(ranges) == 1:
        return [table]
    table = table[np.lexsort((table["step"], table["range"]))]  # a UNION has no order
    return np.split(table, np.searchsorted(table["range"], np.arange(1, len(ranges))))


def _read_cells(session: Session, ranges: Sequence[RunRange], *, with_extra: bool) -> Sequence[Sequence[Cell]]:
    """For each range: the steps that have JSON cells."""
    extra = bulk.json_text(session, "extra") if with_extra else "NULL"
    has_cells = " AND (non_finite IS NOT NULL OR extra IS NOT NULL)" if with_extra else " AND non_finite IS NOT NULL"
    found: list[list[Cell]] = [[] for _ in ranges]
    for rows in _rows(session, ranges, ["step", bulk.json_text(session, "non_finite"), extra], has_cells):
        if len(ranges) == 1:
            found[0] += rows
        else:
            for number, *cell in rows:
                found[number].append(tuple(cell))
    return found


def _rows(
    session: Session, ranges: Sequence[RunRange], columns: Sequence[str], condition: str = ""
) -> Iterator[Sequence[Any]]:
    """Rows, some at a time. Those of several ranges begin with the number of their range, and are in no order."""
    if len(ranges) == 1:
        statement = f"SELECT {', '.join(columns)}{FROM_STEPS}{condition} ORDER BY step"
    else:
        statement = " UNION ALL ".join(
            f"SELECT {number}, {', '.join(columns)}{FROM_STEPS}{condition}" for number in range(len(ranges))
        )
    values = [(run_pk, one.segment, one.first, end_of(one)) for run_pk, one in ranges]
    return bulk.read_chunks(session, statement, tuple(value for four in values for value in four))


def _custom(num_steps: int, positions: Ints, texts: Sequence[str | None], names: Sequence[str]) -> dict[str, Floats]:
    """The metrics of the JSON column, read digit by digit: SQLite's own conversion may be off by the last bit."""
    values = {name: np.full(num_steps, np.nan) for name in names}
    if not names or not texts:
        return values
    try:
        table = _read_lines([text or "{}" for text in texts], names)
        is_damaged = table.num_rows != len(texts)
    except (pa.ArrowException, TypeError):
        is_damaged = True
    if is_damaged:
        table = _read_lines([json.dumps(_numbers(text, names)) for text in texts], names)
    for name in names:
        values[name][positions] = floats(table[name])
    return values


def _read_lines(texts: Sequence[str], names: Sequence[str]) -> pa.Table:
    lines = "\n".join(texts).encode()
    return pyarrow.json.read_json(
        io.BytesIO(lines),
        read_options=pyarrow.json.ReadOptions(block_size=len(lines) + 1),  # a row must not be cut by a block's end
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.float64()) for name in names]), unexpected_field_behavior="ignore"
        ),
    )


def _numbers(text: str | None, names: Sequence[str]) -> dict[str, float]:
    """The values of these metrics in one cell, read on its own because a neighbour is damaged."""
    found = _object(text)
    return {name: found[name] for name in names if type(found.get(name)) in (int, float) and abs(found[name]) < 2**1000}


def _marks(positions: Ints, texts: Sequence[str | None]) -> dict[str, dict[int, float]]:
    """Metric -> position -> the value that was not finite."""
    marks: dict[str, dict[int, float]] = {}
    for at, text in zip(positions.tolist(), texts, strict=True):
        for name, mark in _object(text).items():
            if isinstance(mark, str) and mark in NON_FINITE:
                marks.setdefault(name, {})[at] = NON_FINITE[mark]
    return marks


def _object(text: str | None) -> dict[str, Any]:
    """A JSON cell; a damaged one is empty, and the log says so once."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    _say_damaged(f"a cell of the table steps is damaged, and left out: {text!r:.80}")
    return {}


@lru_cache(1000)
def _say_damaged(sentence: str) -> None:
    log.warning(sentence)
