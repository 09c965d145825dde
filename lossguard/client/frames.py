"""Frames of the client: pandas frames, or dicts of columns where pandas is not installed.

The steps of an export are decoded while they arrive:

Arrow   a stream of record batches, with pyarrow and pandas: 8 bytes a value, and no text in between
CSV     with the standard library, for a machine without them

A value that was not reported is a null in the one and an empty cell in the other; NaN and infinities are themselves.
"""

import csv
import importlib.util
import io
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from lossguard.client.answers import AnswerStream
from lossguard.client.tables import ColumnType, Table, original_name
from lossguard.vocabulary.errors import Unreachable
from lossguard.vocabulary.protocol import decode_number

Frame = Any
"""A pandas DataFrame; without pandas, a dict of columns: name -> list, the index first."""

OWN_COLUMNS = ("step", "segment", "live", "time")
"""Columns of steps that are not metrics; a metric of such a name is `metric.<name>`."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS_AT_ONCE = 5_000
BUFFER_BYTES = 1 << 18
MAX_LINE = 1 << 20
"""Maximum characters of a line: a thousand metrics with names of 128."""
_INT32, _UINT16 = struct.Struct("<i"), struct.Struct("<H")
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The end of a whole Arrow stream."""


def has(package: str) -> bool:
    """Return True if a package can be imported."""
    return importlib.util.find_spec(package) is not None


# Steps from Arrow.


def arrow_steps(stream: AnswerStream) -> Frame:
    """A frame of steps, with pandas and pyarrow. Raises Unreachable unless the stream is whole."""
    from lossguard.client.pandas_frames import step_frame

    table = _read_arrow(stream)
    own = {name: table[name].to_numpy() for name in OWN_COLUMNS}
    metrics = {name: table[name] for name in table.column_names if name not in own}
    return step_frame(
        own,
        {
            name: (column.to_numpy(), column.is_valid().to_numpy() if column.null_count else None)
            for name, column in metrics.items()
        },
    )


def _read_arrow(stream: AnswerStream) -> Any:
    import pyarrow as pa

    try:
        reader = pa.ipc.MessageReader.open_stream(stream)
        schema = pa.ipc.read_schema(reader.read_next_message())
        is_plain = {pa.int32(), pa.int64(), pa.float64(), pa.bool_()}.issuperset(schema.types)
        batches = []
        for message in reader:
            if not is_plain or message.type != "record batch" or _may_be_compressed(message.metadata):
                raise pa.ArrowInvalid("it holds something else than plain columns")  # which may become any size
            batches.append(pa.ipc.read_record_batch(message, schema))
            batches[-1].validate()  # that the buffers are as long as the columns
        table = pa.Table.from_batches(batches, schema)
        if stream.read(1):
            raise pa.ArrowInvalid("it goes on behind its end")
    except (pa.ArrowException, OSError, MemoryError, struct.error, StopIteration) as error:
        raise Unreachable(f"the collector's stream of steps cannot be read ({error}): ask again") from error
    if not stream.tail.endswith(END_OF_STREAM):  # Arrow takes a stream that was cut between two batches for whole
        raise Unreachable("the collector's stream of steps ended early: nothing of it was kept, ask again")
    return table


def _may_be_compressed(metadata: Any) -> bool:
    """Return True if the message may say that the buffers of its record batch are compressed.

    It is a flatbuffer (Arrow's Message.fbs): `header` is field 2 of a message, `compression` field 3 of a batch. Arrow
    0.17 said it in `custom_metadata`, field 4 of a message, where it is still read.
    """
    message = _INT32.unpack_from(metadata, 0)[0]
    if _field(metadata, message, 4):
        return True
    header = _field(metadata, message, 2)
    return bool(header and _field(metadata, header + _INT32.unpack_from(metadata, header)[0], 3))


def _field(data: Any, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table stands; 0 if the table has none."""
    fields = table - _INT32.unpack_from(data, table)[0]
    if 4 + 2 * number >= _UINT16.unpack_from(data, fields)[0]:
        return 0
    offset: int = _UINT16.unpack_from(data, fields + 4 + 2 * number)[0]
    return table + offset if offset else 0


# Steps from CSV.


def csv_steps(stream: AnswerStream) -> Frame:
    """A frame of steps, without pyarrow. Raises Unreachable unless the stream is whole."""
    columns = _read_csv(stream)
    own = {name: columns.pop(name) for name in OWN_COLUMNS}
    if not has("pandas"):
        return own | {"time": list(map(_time, own["time"]))} | columns
    import numpy as np

    from lossguard.client.pandas_frames import step_frame

    return step_frame(
        {name: np.array(values, dtype=kind) for (name, values), kind in zip(own.items(), "qq?d", strict=True)},
        {
            name: (np.array(cells, dtype=np.float64), np.array([cell is not None for cell in cells], dtype=np.bool_))
            for name, cells in columns.items()
        },
    )


def _read_csv(stream: AnswerStream) -> dict[str, list[Any]]:
    """Columns by name: whole numbers, bools, and floats or None."""
    buffer: Any = io.BufferedReader(stream, BUFFER_BYTES)
    text = io.TextIOWrapper(buffer, encoding="utf-8", newline="")
    rows = csv.reader(iter(lambda: text.readline(MAX_LINE), ""))
    try:
        columns: dict[str, list[Any]] = {original_name(name): [] for name in next(rows, [])}
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            for name, texts in zip(columns, zip(*chunk, strict=True), strict=True):
                columns[name] += _values(name, texts)
    except (ValueError, csv.Error) as error:
        raise Unreachable(f"the collector's steps cannot be read ({error}): ask again") from error
    return columns


def _values(name: str, texts: Sequence[str]) -> list[Any]:
    if name in ("step", "segment"):
        return list(map(int, texts))
    if name == "live":
        return [text == "true" for text in texts]
    try:
        return list(map(float, texts))
    except ValueError:  # some were not reported
        return [float(text) if text else None for text in texts]


# Tables, from JSON.


def table_of(table: Table, rows: Sequence[Mapping[str, Any]]) -> Frame:
    """Rows as they come from the API, without the key that the store gives them where they have a number.

    A column that a collector of another release leaves out is missing in every row.
    """
    names = dict.fromkeys([*table, *(name for row in rows for name in row if name != "id")])
    return table_of_columns(table, {name: [row.get(name) for row in rows] for name in names})


def table_of_columns(table: Table, columns: Mapping[str, list[Any]]) -> Frame:
    """Columns as they come from the API, in the order of `table`; what it does not name comes last."""
    names = [name for name in dict.fromkeys([*table, *columns]) if name in columns]
    numbers = [name for name in names if table.get(name) in (ColumnType.NUMBER, ColumnType.TIME)]
    decoded = {name: list(map(decode_number, columns[name])) if name in numbers else columns[name] for name in names}
    if not has("pandas"):
        times = (name for name in numbers if table[name] is ColumnType.TIME)
        return decoded | {name: list(map(_time, decoded[name])) for name in times}
    from lossguard.client.pandas_frames import table_frame

    return table_frame(table, decoded)


def _time(seconds: float | None) -> datetime | None:
    """Unix seconds as a time, to the microsecond."""
    return None if seconds is None else EPOCH + timedelta(microseconds=round(seconds * 1e6))
