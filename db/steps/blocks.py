"""Stored steps as columns, a block at a time: what frames and exports are made of, in constant memory.

N is the number of steps of a block. The driver's rows become arrays a few thousand at a time: the next ones then find
their memory still warm, and the garbage collector has little to look through.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
from sqlalchemy.orm import Session

from db import bulk
from db.lineage import StepRange
from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools, MetricColumn
from lossguard.metrics import COLUMNS
from lossguard.protocol import NON_FINITE

ROWS = 20_000
"""Steps of a block."""

END = 2**63 - 1
WITHIN = " FROM steps WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ?"


@dataclass(frozen=True, slots=True)
class Block:
    """Steps of one segment in their order; every column has the same length N."""

    segment: int
    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)

    def within(self, step_range: StepRange | None) -> Bools:
        """bool[N]: which of the steps the stretch holds; without one, none."""
        if step_range is None:
            return np.zeros(len(self), dtype=np.bool_)
        last = END if step_range.last is None else step_range.last
        return (self.steps >= step_range.first) & (self.steps < last)


@dataclass(frozen=True, slots=True)
class _Span:
    """The steps [first, end) of a segment, of which `count` are there."""

    run_pk: int
    segment: int
    first: int
    end: int
    count: int

    def rows(self, session: Session, columns: Sequence[str], also: str = "") -> Iterator[Sequence[Any]]:
        statement = f"SELECT {', '.join(columns)}{WITHIN}{also} ORDER BY step"
        return bulk.parts(session, statement, (self.run_pk, self.segment, self.first, self.end))


def blocks(
    session: Session, *, run_pk: int, step_range: StepRange, metrics: Sequence[str], rows: int = ROWS
) -> Iterator[Block]:
    """The steps of a stretch with these metrics, at most `rows` at a time."""
    low: int = step_range.first
    while block := next_block(session, run_pk=run_pk, step_range=step_range, metrics=metrics, low=low, rows=rows):
        yield block
        low = int(block.steps[-1]) + 1


def next_block(
    session: Session, *, run_pk: int, step_range: StepRange, metrics: Sequence[str], low: int, rows: int = ROWS
) -> Block | None:
    """The first `rows` steps of a stretch from step `low` on; None when there is none."""
    span = _next_span(session, run_pk, step_range, low, rows)
    if span is None:
        return None
    standard = [name for name in metrics if name in COLUMNS]
    steps, numbers = _numbers(session, span, ["time", *standard])
    values = dict(zip(standard, numbers[1:], strict=True))
    values |= _custom(session, span, [name for name in metrics if name not in COLUMNS])
    marks = _marks(session, span)
    columns = {name: _column(values[name], steps, marks.get(name, {})) for name in metrics}
    return Block(step_range.segment, steps, numbers[0], columns)


def _next_span(session: Session, run_pk: int, step_range: StepRange, low: int, rows: int) -> _Span | None:
    """The first `rows` steps from `low` on. Only the last block is counted: a count looks at every row."""
    place = (
        run_pk,
        step_range.segment,
        max(low, step_range.first),
        END if step_range.last is None else step_range.last,
    )
    found = bulk.read(session, f"SELECT min(step){WITHIN}", place)
    behind = bulk.read(session, f"SELECT step{WITHIN} ORDER BY step LIMIT 1 OFFSET ?", (*place, rows))
    if behind:
        return _Span(run_pk, step_range.segment, found[0][0], behind[0][0], rows)
    ((last, count),) = bulk.read(session, f"SELECT max(step), count(*){WITHIN}", place)
    return _Span(run_pk, step_range.segment, found[0][0], last + 1, count) if count else None


def _numbers(session: Session, span: _Span, names: Sequence[str]) -> tuple[Ints, list[Floats]]:
    """The steps, and the numeric columns of these names; NaN where a column is NULL.

    Steps without a gap between them need not be read, which saves a third of the time.
    """
    gapless = span.end - span.first == span.count
    kinds = [(name, np.float64) for name in names] + ([] if gapless else [("step", np.int64)])
    dtype = np.dtype(kinds)
    parts = [np.array(part, dtype=dtype) for part in span.rows(session, bulk.quoted(dtype.names or ()))]
    table = np.concatenate(parts)
    steps = np.arange(span.first, span.end) if gapless else table["step"].copy()
    return steps, [table[name].copy() for name in names]


def _custom(session: Session, span: _Span, names: Sequence[str]) -> dict[str, Floats]:
    """The metrics of the JSON column, read digit by digit: SQLite's own conversion may be off by the last bit."""
    if not names:
        return {}
    schema = pa.schema([(name, pa.float64()) for name in names])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    texts = [text or "{}" for part in span.rows(session, ["CAST(extra AS TEXT)"]) for (text,) in part]
    table = pyarrow.json.read_json(io.BytesIO("\n".join(texts).encode()), parse_options=options)
    return {name: table[name].to_numpy() for name in names}


def _marks(session: Session, span: _Span) -> dict[str, dict[int, float]]:
    """Metric -> step -> the value that was not finite."""
    marks: dict[str, dict[int, float]] = {}
    for part in span.rows(session, ["step", "CAST(non_finite AS TEXT)"], " AND non_finite IS NOT NULL"):
        for step, text in part:
            for name, mark in json.loads(text).items():
                marks.setdefault(name, {})[step] = NON_FINITE[mark]
    return marks


def _column(stored: Floats, steps: Ints, marks: Mapping[int, float]) -> MetricColumn:
    finite = ~np.isnan(stored)  # NULL became NaN; nothing else can be one
    if not marks:
        return MetricColumn(stored, finite, finite, bool(finite.all()))
    values, reported = stored.copy(), finite.copy()
    at = np.searchsorted(steps, np.fromiter(marks, dtype=np.int64, count=len(marks)))
    values[at], reported[at] = list(marks.values()), True
    return MetricColumn(values, reported, finite, False)
