"""Columns of Arrow as arrays of numpy. Arrow's own conversion imports pandas: 50 MB that a collector does not need."""

from typing import Any

import numpy as np
import pyarrow as pa

from db.steps.buckets import Floats
from db.steps.columns import Bools, MetricColumn


def array(column: MetricColumn) -> pa.Array:
    """Return the values of a metric, with null where it was not reported."""
    return pa.array(column.values) if column.reported.all() else pa.array(column.values, mask=~column.reported)


def floats(column: pa.ChunkedArray) -> Floats:
    """float64[N] with NaN for null."""
    return np.where(is_valid(column), numbers(column, np.float64), np.nan)


def numbers(column: pa.ChunkedArray, dtype: Any) -> Any:
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


def is_valid(column: pa.ChunkedArray) -> Bools:
    """bool[N]: which values are not null, from the bitmap that Arrow has where any is."""
    return np.concatenate([np.empty(0, dtype=np.bool_), *map(_is_valid, column.chunks)])


def _is_valid(chunk: pa.Array) -> Bools:
    valid = chunk.buffers()[0]
    if valid is None:
        return np.full(len(chunk), chunk.null_count == 0)
    bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")
    return bits[chunk.offset : chunk.offset + len(chunk)].astype(np.bool_)
