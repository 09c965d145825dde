"""The rows of `steps`: the newest steps of a segment and late ones, fewer than `packing.PACK_AT` of a segment.

A row holds the values of its step as bytes: a CELL for each metric that the step reported, bit for bit. So a metric
needs no column, and a NaN or an infinity no place of its own.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools, MetricColumn
from db.steps.step_block import RunRange, StepBlock, end_of
from db.store import bulk

log = logging.getLogger(__name__)

FROM_STEPS = " FROM steps WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ?"
CELL = np.dtype([("metric", "<u4"), ("value", "<f8")])
"""A metric's number (`models.Metric.number`) and its value."""


def read_rows(
    session: Session, ranges: Sequence[RunRange], metrics: Sequence[str], numbers: Mapping[int, Mapping[str, int]]
) -> list[StepBlock]:
    """Read the rows of each range together. `numbers`: those of the metrics, by run and name."""
    index = [f", {at}" for at in range(len(ranges))] if len(ranges) > 1 else [""]
    statement = " UNION ALL ".join(f'SELECT step, time, "values"{at}{FROM_STEPS}' for at in index)
    bounds = [(run_pk, one.segment, one.first, end_of(one)) for run_pk, one in ranges]
    values = tuple(value for four in bounds for value in four)
    found: list[list[tuple[Any, ...]]] = [[] for _ in ranges]
    for rows in bulk.read_chunks(session, statement, values):
        if len(ranges) == 1:
            found[0] += rows
        else:
            for row in rows:
                found[row[3]].append(row)
    return [
        _block(one.segment, sorted(rows), metrics, numbers[run_pk])  # databases sort a UNION more slowly
        for (run_pk, one), rows in zip(ranges, found, strict=True)
    ]


def read_steps(session: Session, run_pk: int, step_range: StepRange) -> Ints:
    """The numbers of the rows of a range."""
    values = (run_pk, step_range.segment, step_range.first, end_of(step_range))
    found = bulk.read(session, f"SELECT step{FROM_STEPS} ORDER BY step", values)
    return np.array([step for (step,) in found], dtype=np.int64)


def _block(
    segment: int, rows: Sequence[tuple[Any, ...]], metrics: Sequence[str], numbers: Mapping[str, int]
) -> StepBlock:
    steps, times, stored, *_ = zip(*rows, strict=True) if rows else ((), (), ())
    if set(map(type, stored)) - {bytes} or any(length % CELL.itemsize for length in set(map(len, stored))):
        stored = tuple(map(_whole, stored))
    wanted = {numbers[name]: at for at, name in enumerate(metrics) if name in numbers}
    values, reported = np.full((len(metrics), len(rows)), np.nan), np.zeros((len(metrics), len(rows)), dtype=np.bool_)
    _decode(stored, wanted, values, reported)
    columns = {name: MetricColumn.of_arrays(*pair) for name, *pair in zip(metrics, values, reported, strict=True)}
    return StepBlock(segment, np.array(steps, dtype=np.int64), np.array(times, dtype=np.float64), columns)


def _decode(stored: Sequence[bytes], wanted: Mapping[int, int], values: Floats, reported: Bools) -> None:
    """Write the values of N rows into float64[M, N] and bool[M, N]. `wanted`: number of a metric -> its place in M."""
    cells = np.frombuffer(b"".join(stored), CELL)
    if len(set(map(len, stored))) == 1:
        table = cells.reshape(len(stored), len(cells) // len(stored))
        if (table["metric"] == table["metric"][0]).all():  # as a rule, all steps report the same metrics
            for at, number in enumerate(table["metric"][0].tolist()):
                if number in wanted:
                    values[wanted[number]], reported[wanted[number]] = table["value"][:, at], True
            return
    column_of = np.full(max(wanted, default=0) + 2, -1, dtype=np.int32)  # the last one stands for all numbers above
    column_of[list(wanted)] = list(wanted.values())
    found = np.flatnonzero(column_of.take(cells["metric"], mode="clip") >= 0)
    ends = np.cumsum(np.fromiter(map(len, stored), np.int64, len(stored))) // CELL.itemsize
    places = column_of[cells["metric"][found]], np.searchsorted(ends, found, side="right")
    values[places], reported[places] = cells["value"][found], True


def _whole(cells: object) -> bytes:
    """The values of a row; a damaged one has none, and the log says so once."""
    if isinstance(cells, bytes) and len(cells) % CELL.itemsize == 0:
        return cells
    _say_damaged(f"a row of the table steps is damaged, and its values are left out: {cells!r:.80}")
    return b""


@lru_cache(1000)
def _say_damaged(sentence: str) -> None:
    log.warning(sentence)
