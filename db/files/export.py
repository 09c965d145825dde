"""Write a run to a file as a stream: one block of its steps is in memory at a time, and no lock is held meanwhile.

Parquet   one row per step, and the rest of the run: the schema's metadata holds the JSON of `db.files.record` under
          `lossguard`. A null is a value that was not reported; NaN and infinities were reported.
CSV       the steps alone. An empty cell is a value that was not reported; `nan`, `inf` and `-inf` were reported. A name
          that a spreadsheet would take for a formula begins with an apostrophe (see `db.files.csv_file`).

Both have the columns `segment`, `step`, `time` (unix seconds), `live` (whether the step is on the live line), then the
metrics; a metric that is called like one of these has the column `metric.<name>`. Rows are sorted by segment and step.

The description (in memory as a whole) is read in one snapshot. Stored steps never change, so every block is read in a
transaction of its own. Steps that arrive during the export are left out.
"""

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import sqlalchemy as sa

from db import queries
from db.engine import reading
from db.files import record
from db.files.csv_file import safe_name
from db.lineage import StepRange, live_line
from db.models import Segment
from db.steps.columns import MetricColumn, column_of
from db.steps.reader import MAX_BLOCK_STEPS, StepBlock, next_block

KEY = b"lossguard"


class Format(StrEnum):
    """File formats of an export."""

    PARQUET = "parquet"
    CSV = "csv"


class UnknownRun(LookupError):
    """There is no such run."""


class RunChanged(RuntimeError):
    """The run was deleted during the export: the file is incomplete."""


def stream(engine: sa.Engine, *, run_id: str, format: Format, max_steps: int = MAX_BLOCK_STEPS) -> Iterator[bytes]:
    """The bytes of the file, about a block of `max_steps` steps at a time.

    Raises UnknownRun before the first bytes, RunChanged after some of them.
    """
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise UnknownRun(f"there is no run {run_id!r}")
        described, run_pk = record.describe(session, run=run), run.pk
        tree = queries.segments(session, run=run)
    line = {step_range.segment: step_range for step_range in live_line(tree)}
    sink = _Sink()
    schema = schema_of(described, format)
    with _writer(sink, schema, format, described) as writer:
        for segment in tree:
            for block in _blocks(engine, run_pk, segment, described["metrics"], max_steps):
                writer.write_batch(_batch(block, line.get(segment.number), schema))
                yield sink.drain()
    yield sink.drain()


def schema_of(described: Mapping[str, Any], format: Format) -> pa.Schema:
    """The columns of a file of steps."""
    columns = map(column_of, described["metrics"])
    own = [("segment", pa.int32()), ("step", pa.int64()), ("time", pa.float64()), ("live", pa.bool_())]
    names = map(safe_name, columns) if format is Format.CSV else columns
    return pa.schema(own + [(name, pa.float64()) for name in names])


def _writer(sink: "_Sink", schema: pa.Schema, format: Format, described: Mapping[str, Any]) -> Any:
    if format is Format.CSV:
        return pyarrow.csv.CSVWriter(sink, schema)
    # store_schema: Arrow's own copy of the schema would hold the description a second time.
    options = {"compression": "zstd", "use_dictionary": ["segment"], "store_schema": False}
    writer = pyarrow.parquet.ParquetWriter(sink, schema, **options)
    writer.add_key_value_metadata({KEY: json.dumps(described)})
    return writer


def _blocks(
    engine: sa.Engine, run_pk: int, segment: Segment, metrics: list[str], max_steps: int
) -> Iterator[StepBlock]:
    """The steps that a segment had when it was described. No session is open while a block is in use."""
    if segment.first_step is None or segment.last_step is None:
        return
    step_range, num_read = StepRange(segment.number, segment.first_step, segment.last_step + 1), 0
    low = step_range.first
    while True:
        with reading(engine) as session:
            block = next_block(
                session, run_pk=run_pk, step_range=step_range, metrics=metrics, low=low, max_steps=max_steps
            )
        if block is None:
            break
        low, num_read = int(block.steps[-1]) + 1, num_read + len(block)
        yield block
    if num_read < segment.num_steps:
        raise RunChanged("the run was deleted during the export; the file is incomplete")


def _batch(block: StepBlock, live: StepRange | None, schema: pa.Schema) -> pa.RecordBatch:
    own = (np.full(len(block), block.segment, dtype=np.int32), block.steps, block.times, block.within(live))
    metrics = [_array(column) for column in block.metrics.values()]
    return pa.record_batch([*map(pa.array, own), *metrics], schema=schema)


def _array(column: MetricColumn) -> pa.Array:
    return pa.array(column.values) if column.plain else pa.array(column.values, mask=~column.reported)


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
