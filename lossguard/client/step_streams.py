"""The steps of an export as columns, decoded while they arrive.

Arrow   a stream of record batches, with pyarrow and pandas: 8 bytes a value, and no text in between
CSV     with the standard library, for a machine without them

A value that was not reported is a null in the one and an empty cell in the other; NaN and infinities are themselves.
"""

import csv
import io
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from lossguard.client.answers import AnswerStream
from lossguard.client.tables import original_name
from lossguard.vocabulary.errors import Unreachable

ROWS_AT_ONCE = 5_000
BUFFER_BYTES = 1 << 18
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How a whole Arrow stream ends."""


def read_arrow(stream: AnswerStream) -> Any:
    """A pyarrow table. Raises Unreachable unless the stream is whole."""
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(stream) as reader:
            table = reader.read_all()
        stream.read()
    except pa.ArrowInvalid as error:
        raise Unreachable(f"the collector's stream of steps cannot be read ({error}): ask again") from error
    if not stream.tail.endswith(END_OF_STREAM):  # Arrow takes a stream that was cut between two batches for whole
        raise Unreachable("the collector's stream of steps ended early: nothing of it was kept, ask again")
    return table


def read_csv(stream: AnswerStream) -> dict[str, list[Any]]:
    """Columns by name: whole numbers, bools, and floats or None. Raises Unreachable unless the stream is whole."""
    buffer: Any = io.BufferedReader(stream, BUFFER_BYTES)
    rows = csv.reader(io.TextIOWrapper(buffer, encoding="utf-8", newline=""))
    columns: dict[str, list[Any]] = {original_name(name): [] for name in next(rows, [])}
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        for name, cells in zip(columns, zip(*chunk, strict=True), strict=True):
            columns[name] += CONVERTERS.get(name, _numbers)(cells)
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
