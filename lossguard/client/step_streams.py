"""The steps of an export as columns, decoded while they arrive.

Arrow   a stream of record batches, with pyarrow and pandas: 8 bytes a value, and no text in between
CSV     with the standard library, for a machine without them

A value that was not reported is a null in the one and an empty cell in the other; NaN and infinities are themselves.
"""

import csv
import io
import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from lossguard.client.answers import AnswerStream
from lossguard.client.tables import original_name
from lossguard.vocabulary.errors import Unreachable

ROWS_AT_ONCE = 5_000
BUFFER_BYTES = 1 << 18
MAX_LINE = 1 << 20
"""Maximum characters of a line: a thousand metrics with names of 128."""
_INT32, _UINT16 = struct.Struct("<i"), struct.Struct("<H")
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The end of a whole Arrow stream."""


def read_arrow(stream: AnswerStream) -> Any:
    """A pyarrow table. Raises Unreachable unless the stream is whole."""
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


def read_csv(stream: AnswerStream) -> dict[str, list[Any]]:
    """Columns by name: whole numbers, bools, and floats or None. Raises Unreachable unless the stream is whole."""
    buffer: Any = io.BufferedReader(stream, BUFFER_BYTES)
    text = io.TextIOWrapper(buffer, encoding="utf-8", newline="")
    rows = csv.reader(iter(lambda: text.readline(MAX_LINE), ""))
    try:
        columns: dict[str, list[Any]] = {original_name(name): [] for name in next(rows, [])}
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            for name, cells in zip(columns, zip(*chunk, strict=True), strict=True):
                columns[name] += CONVERTERS.get(name, _numbers)(cells)
    except (ValueError, csv.Error) as error:
        raise Unreachable(f"the collector's steps cannot be read ({error}): ask again") from error
    return columns


def _integers(cells: Sequence[str]) -> list[int]:
    return list(map(int, cells))


def _bools(cells: Sequence[str]) -> list[bool]:
    return [cell == "true" for cell in cells]


def _numbers(cells: Sequence[str]) -> list[float | None]:
    try:
        return list(map(float, cells))
    except ValueError:  # some were not reported
        return [float(cell) if cell else None for cell in cells]


CONVERTERS: dict[str, Callable[[Sequence[str]], list[Any]]] = {"segment": _integers, "step": _integers, "live": _bools}
"""By column; no metric has one of these names (`metric.step` is a metric)."""
