"""Steps as Parquet, bit for bit: the columns and the writer of exports and archived files, and a segment read back.

Columns: `segment`, `step`, `time` (unix seconds), in an export `live`, then the metrics; a metric that is called like
one of these is `metric.<name>`. A null is a value that was not reported; NaN and infinities were. Rows are sorted by
segment and step. Each page has a checksum.

An archived file holds the metrics that any of its steps reported. Its row groups are small enough that one metric of a
few steps is a small read, and large enough that a metric of the whole file is few reads.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from db.steps.step_block import Bools, MetricColumn, StepBlock, column_of, metric_of

ROW_GROUP_STEPS = 65_536
ROW_GROUP_VALUES = 2_097_152
"""16 MB of memory for one that is read whole."""
COMPRESSION_LEVEL = 3


class DamagedFile(ValueError):
    """The bytes are not the file that was written; the message is one sentence without the file's name."""


def schema_of(metrics: Iterable[str], *, live: bool) -> pa.Schema:
    """The columns of steps with these metrics. `live`: also whether a step is on the live line."""
    own = [("segment", pa.int32()), ("step", pa.int64()), ("time", pa.float64())]
    own += [("live", pa.bool_())] if live else []
    return pa.schema(own + [(column_of(name), pa.float64()) for name in metrics])


def rows_of(block: StepBlock, schema: pa.Schema, *live: Bools) -> pa.RecordBatch:
    """The steps as rows of the schema."""
    segments = np.full(len(block), block.segment, dtype=np.int32)
    own = map(pa.array, (segments, block.steps, block.times, *live))
    return pa.record_batch([*own, *map(_array, block.metrics.values())], schema=schema)


def writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of row groups. Arrow's own copy of the schema is left out: it would hold the metadata a second time."""
    floats = [field.name for field in schema if field.type == pa.float64()]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=["segment"],
        column_encoding={"step": "DELTA_BINARY_PACKED", **dict.fromkeys(floats, "BYTE_STREAM_SPLIT")},
        write_statistics=["step"],
        write_page_checksum=True,
        store_schema=False,
    )


def encode(block: StepBlock) -> bytes:
    """The file of these steps. A metric that none of them reported has no column."""
    reported = {name: column for name, column in block.metrics.items() if column.reported.any()}
    schema, sink = schema_of(reported, live=False), io.BytesIO()
    with writer(sink, schema) as file:
        size = max(1, min(ROW_GROUP_STEPS, ROW_GROUP_VALUES // len(schema)))
        file.write_batch(rows_of(replace(block, metrics=reported), schema), row_group_size=size)
    return sink.getvalue()


def metric_names(metadata: pq.FileMetaData) -> list[str]:
    """The metrics that the file has a column for."""
    names = (metadata.schema.column(number).name for number in range(metadata.num_columns))
    return [metric for name in names if (metric := metric_of(name)) is not None]


def metadata_of(file: Any) -> pq.FileMetaData:
    """Read the file's footer. Raises DamagedFile."""
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise DamagedFile(f"it is no whole Parquet file ({_first_line(error)})") from error


def groups_of(metadata: pq.FileMetaData, *, first: int, end: int) -> list[int]:
    """The row groups that hold steps of [first, end)."""
    groups = ((number, metadata.row_group(number).column(1).statistics) for number in range(metadata.num_row_groups))
    return [number for number, steps in groups if steps.min < end and steps.max >= first]


def decode(file: Any, *, metadata: pq.FileMetaData, groups: Sequence[int], metrics: Sequence[str]) -> StepBlock:
    """Decode these row groups and metrics of a file; other columns are not read. Raises DamagedFile."""
    stored = set(metric_names(metadata))
    wanted = ["segment", "step", "time", *(column_of(name) for name in metrics if name in stored)]
    try:
        source = pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
        table = source.read_row_groups(groups, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedFile(f"a page of it cannot be read ({_first_line(error)})") from error
    steps, never = _numbers(table["step"], np.int64), MetricColumn.unreported(len(table))
    columns = {name: column_from(table[column_of(name)]) if name in stored else never for name in metrics}
    segment = int(table["segment"][0].as_py()) if len(steps) else 0
    return StepBlock(segment, steps, _numbers(table["time"], np.float64), columns)


def decode_whole(file: Any, *, metrics: Sequence[str] | None = None) -> StepBlock:
    """Decode all steps of a file, with these metrics; None: those that it has. Raises DamagedFile."""
    metadata = metadata_of(file)
    names = metric_names(metadata) if metrics is None else metrics
    return decode(file, metadata=metadata, groups=range(metadata.num_row_groups), metrics=names)


# Arrow's own conversion to numpy imports pandas: 50 MB that a collector does not need.


def _array(column: MetricColumn) -> pa.Array:
    """Return the values of a metric, with null where it was not reported."""
    return pa.array(column.values) if column.reported.all() else pa.array(column.values, mask=~column.reported)


def column_from(stored: pa.ChunkedArray) -> MetricColumn:
    """The values of a metric, and which of them were reported."""
    reported = np.concatenate([np.empty(0, dtype=np.bool_), *map(_is_valid, stored.chunks)])
    return MetricColumn.of_arrays(np.where(reported, _numbers(stored, np.float64), np.nan), reported)


def _numbers(column: pa.ChunkedArray, dtype: Any) -> Any:
    """dtype[N] of a column whose values take eight bytes; what stands in place of a null is any number."""
    found = np.zeros(len(column), dtype=dtype)
    start = 0
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            data = chunk.buffers()[1]
            values = np.frombuffer(data, dtype=dtype, count=len(chunk), offset=8 * chunk.offset)
            found[start : start + len(chunk)] = values
        start += len(chunk)
    return found


def _is_valid(chunk: pa.Array) -> Bools:
    """bool[N]: which values are not null, from the bitmap that Arrow has where any is."""
    valid = chunk.buffers()[0]
    if valid is None:
        return np.full(len(chunk), chunk.null_count == 0)
    bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")
    return bits[chunk.offset : chunk.offset + len(chunk)].astype(np.bool_)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
