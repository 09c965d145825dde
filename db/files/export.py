"""A run as a file, streamed: no more than a block of its steps is in memory, and nothing is locked or held meanwhile.

Parquet   one row per step, and the whole run beside it: the schema's metadata holds the JSON of `db.record` under
          `lossguard`. A null is a value that was not reported, NaN and infinities are what was reported.
CSV       the steps alone. An empty cell is a value that was not reported; `nan`, `inf` and `-inf` were reported.

Columns of both: `segment`, `step`, `time` (unix seconds), `live` (whether the step is on the live line), then the
metrics; one whose name is taken is called `metric.<name>`. Rows are sorted by segment and step.

The description (in memory as a whole) is read in one snapshot; steps are never changed, so every block may be read in a
transaction of its own. What arrives meanwhile is left out.
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
from db.lineage import StepRange, live_line
from db.steps.blocks import Block, next_block
from db.steps.columns import MetricColumn, column_of

KEY = b"lossguard"


class Format(StrEnum):
    """What a run can be exported as."""

    PARQUET = "parquet"
    CSV = "csv"


class UnknownRun(LookupError):
    """There is no such run."""


class RunChanged(RuntimeError):
    """The run was deleted while it was exported: what was written is not whole."""


def stream(engine: sa.Engine, *, run_id: str, format: Format) -> Iterator[bytes]:
    """The bytes of the file, about a block at a time. Raises UnknownRun at the first one, RunChanged later."""
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise UnknownRun(f"there is no run {run_id!r}")
        described, run_pk = record.describe(session, run=run), run.pk
        tree = queries.segments(session, run=run)
    line = {step_range.segment: step_range for step_range in live_line(tree)}
    sink = _Sink()
    schema = schema_of(described)
    with _writer(sink, schema, format, described) as writer:
        for segment in tree:
            for block in _blocks(engine, run_pk, segment, described["metrics"]):
                writer.write_batch(_batch(block, line.get(segment.number), schema))
                yield sink.taken()
    yield sink.taken()


def schema_of(described: Mapping[str, Any]) -> pa.Schema:
    """The columns of a file of steps."""
    own = [("segment", pa.int32()), ("step", pa.int64()), ("time", pa.float64()), ("live", pa.bool_())]
    fields = own + [(column_of(name), pa.float64()) for name in described["metrics"]]
    return pa.schema(fields)


def _writer(sink: "_Sink", schema: pa.Schema, format: Format, described: Mapping[str, Any]) -> Any:
    if format is Format.CSV:
        return pyarrow.csv.CSVWriter(sink, schema)
    # store_schema: Arrow's own copy of the schema would hold the description a second time.
    options = {"compression": "zstd", "use_dictionary": ["segment"], "store_schema": False}
    writer = pyarrow.parquet.ParquetWriter(sink, schema, **options)
    writer.add_key_value_metadata({KEY: json.dumps(described)})
    return writer


def _blocks(engine: sa.Engine, run_pk: int, segment: Any, metrics: list[str]) -> Iterator[Block]:
    """The steps that a segment had when it was described; the session of a block ends before the block is used."""
    if segment.last_step is None:
        return
    step_range, low, seen = StepRange(segment.number, segment.first_step, segment.last_step + 1), segment.first_step, 0
    while True:
        with reading(engine) as session:
            block = next_block(session, run_pk=run_pk, step_range=step_range, metrics=metrics, low=low)
        if block is None:
            break
        low, seen = int(block.steps[-1]) + 1, seen + len(block)
        yield block
    if seen < segment.num_steps:
        raise RunChanged("the run was deleted while it was exported; what was written is not whole")


def _batch(block: Block, live: StepRange | None, schema: pa.Schema) -> pa.RecordBatch:
    own = (np.full(len(block), block.segment, dtype=np.int32), block.steps, block.times, block.within(live))
    metrics = [_array(column) for column in block.metrics.values()]
    return pa.record_batch([*map(pa.array, own), *metrics], schema=schema)


def _array(column: MetricColumn) -> pa.Array:
    return pa.array(column.values) if column.plain else pa.array(column.values, mask=~column.reported)


class _Sink:
    """A file that is taken away piece by piece as it is written."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> bytes:
        """What was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
