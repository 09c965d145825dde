"""Write a run as a stream: one block of its steps is in memory at a time, and no lock is held meanwhile.

Parquet   one row per step, and the rest of the run: the schema's metadata holds the JSON of `db.files.record` under
          `lossguard`. A null is a value that was not reported; NaN and infinities were reported.
Arrow     the steps alone, as a stream of Arrow's record batches (IPC), uncompressed: what a client makes a frame of. A
          null is a value that was not reported.
CSV       the steps alone. An empty cell is a value that was not reported; `nan`, `inf` and `-inf` were reported. A name
          that a spreadsheet would take for a formula begins with an apostrophe (see `lossguard.client.tables`).

All have the columns of `db.steps.archived.parquet`, and `live`: whether the step is on the live line. Rows are sorted
by segment and step, those of the live line by step. A `StepSelection` leaves out metrics, steps or branches; a Parquet
file is always whole.

The description (in memory as a whole) is read in one snapshot. Stored steps never change, so every block is read in a
transaction of its own. Steps that arrive during the export are left out, except late ones before the end of their
segment and behind what is written: so the description counts the steps that were written.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.csv
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.files import record
from db.lineage import END, Line, StepRange, end_of, extent, live_line, step_ranges
from db.models import Run, Segment
from db.steps.archived import parquet
from db.steps.reader import MAX_BLOCK_STEPS, next_block
from db.steps.step_block import StepBlock
from db.store.engine import reading
from lossguard.client.tables import safe_name

KEY = b"lossguard"
MAX_NAMES_SHOWN = 20
"""Metrics that an error names."""


class Format(StrEnum):
    """File formats of an export."""

    PARQUET = "parquet"
    CSV = "csv"
    ARROW = "arrow"


WRITERS: Mapping[Format, Callable[..., Any]] = {
    Format.PARQUET: parquet.writer,
    Format.CSV: pyarrow.csv.CSVWriter,
    Format.ARROW: pa.ipc.new_stream,
}


@dataclass(frozen=True, slots=True)
class StepSelection:
    """Selection of a run's steps and metrics to write; by default all of them."""

    metrics: tuple[str, ...] | None = None
    """Names of the metrics; None: all."""
    line: Line = Line.ALL
    first: int | None = None
    last: int | None = None
    """Steps from `first` up to and including `last`."""


WHOLE = StepSelection()


class UnknownRun(LookupError):
    """There is no such run."""


class UnknownMetric(LookupError):
    """The run has no metric of this name; the message says which it has."""


class RunDeleted(RuntimeError):
    """The run was deleted during the export: the file is incomplete."""


def stream(
    engine: sa.Engine,
    *,
    run_id: str,
    format: Format,
    selection: StepSelection = WHOLE,
    max_steps: int = MAX_BLOCK_STEPS,
) -> Iterator[bytes]:
    """The bytes of the file, about a block of `max_steps` steps at a time.

    Raises UnknownRun or UnknownMetric before the first bytes, RunDeleted after some of them.
    """
    assert format is not Format.PARQUET or selection == WHOLE, "an import needs the whole run"
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise UnknownRun(f"there is no run {run_id!r}")
        described = record.describe(session, run=run) if format is Format.PARQUET else {}
        metrics = _metrics(session, run, selection)
        tree = queries.segments(session, run=run)
    line = {step_range.segment: step_range for step_range in live_line(tree)}
    sink = _Sink()
    schema = parquet.schema_of(metrics, live=True)
    if format is Format.CSV:
        schema = pa.schema([field.with_name(safe_name(field.name)) for field in schema])
    num_written = Counter[int]()
    with WRITERS[format](sink, schema) as writer:
        for step_range in _stored_ranges(tree, selection):
            for block in _blocks(engine, run, step_range, metrics, max_steps):
                num_written[block.segment] += len(block)
                writer.write_batch(parquet.rows_of(block, schema, block.within(line.get(step_range.segment))))
                yield sink.drain()
        if format is Format.PARQUET:
            for segment in described["segments"]:
                segment["num_steps"] = num_written[segment["number"]]
            writer.add_key_value_metadata({KEY: json.dumps(described)})
    yield sink.drain()


def _metrics(session: Session, run: Run, selection: StepSelection) -> Sequence[str]:
    names = queries.metric_names(session, run=run)
    for name in selection.metrics or ():
        if name not in names:
            shown = ", ".join(names[:MAX_NAMES_SHOWN]) + (", .." if len(names) > MAX_NAMES_SHOWN else "")
            raise UnknownMetric(f"run {run.id!r} has no metric {name!r}; it has {shown or 'none yet'}")
    return names if selection.metrics is None else list(dict.fromkeys(selection.metrics))


def _stored_ranges(tree: Sequence[Segment], selection: StepSelection) -> Iterator[StepRange]:
    """Return the selected ranges of the steps that the segments have now."""
    extents = {segment.number: extent(segment) for segment in tree}
    low, high = selection.first or 0, END if selection.last is None else selection.last + 1
    for step_range in step_ranges(tree, selection.line):
        chosen, stored = step_range.within(low, high), extents[step_range.segment]
        if chosen and stored and (part := stored.within(chosen.first, end_of(chosen))):
            yield part


def _blocks(
    engine: sa.Engine, run: Run, step_range: StepRange, metrics: Sequence[str], max_steps: int
) -> Iterator[StepBlock]:
    """Yield blocks. No session is open while a block is in use."""
    while step_range.first < end_of(step_range):
        with reading(engine) as session:
            _check(session, run)
            block = next_block(session, run_pk=run.pk, step_range=step_range, metrics=metrics, max_steps=max_steps)
        if block is None:
            return
        yield block
        step_range = step_range.after(int(block.steps[-1]))


def _check(session: Session, run: Run) -> None:
    """Raise RunDeleted where this is no more the run that was described. SQLite uses the keys of deleted rows again."""
    found = session.execute(sa.select(Run.id, Run.started_at).where(Run.pk == run.pk)).one_or_none()
    if found is None or tuple(found) != (run.id, run.started_at):
        raise RunDeleted("the run was deleted during the export; the file is incomplete")


class _Sink:
    """A file in memory that is emptied whenever its bytes are sent."""

    closed = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> int:
        self._chunks.append(bytes(chunk))
        return len(chunk)

    def flush(self) -> None:
        """Writes are never delayed."""

    def drain(self) -> bytes:
        """The bytes that were written since the last call."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)
