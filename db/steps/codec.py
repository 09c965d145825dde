"""Numbers of steps as bytes, exactly, and back: of a row of `steps`, and of a block. Pure.

A row holds a CELL for each metric that the step reported, bit for bit. So a metric needs no column, and a NaN or an
infinity no place of its own.

The first byte of a block's numbers says how they were encoded, so that a later release can do it otherwise. Then comes
a zstd frame of the numbers, little-endian, with the first bytes of all of them before the second ones, and so on:
neighbouring values agree in sign, exponent and the first bits, and what was computed as float32 ends with zeros.
Numbers that only rise or only fall (times, tokens, a learning rate) are replaced by the differences of their bits
first.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from db.steps.step_block import Bools, Floats, Ints, MetricColumn, StepBlock

log = logging.getLogger(__name__)

CELL = np.dtype([("metric", "<u4"), ("value", "<f8")])
"""A metric's number (`models.Metric.number`) and its value."""
PLAIN, DIFFERENCES = b"\x01", b"\x02"
ZSTD = pa.Codec("zstd", compression_level=1)
"""Higher levels cost more time and save nothing here."""
WIDTH = 8
"""Bytes of a number."""


class DamagedBlock(ValueError):
    """Stored bytes that are not a block, or values that are gone; the message says where."""


def encode_rows(block: StepBlock, numbers: Mapping[str, int]) -> list[bytes]:
    """The values of each step. `numbers`: those of the metrics, by name."""
    columns = block.metrics.values()
    if not columns:
        return [b""] * len(block)
    cells = np.empty((len(block), len(columns)), CELL)
    cells["metric"] = [numbers[name] for name in block.metrics]
    cells["value"].T[:] = [column.values for column in columns]
    if all(column.plain for column in columns):
        stored, width = cells.tobytes(), len(columns) * CELL.itemsize
        return [stored[start : start + width] for start in range(0, len(stored), width)]
    reported = np.array([column.reported for column in columns]).T
    return [row[has_value].tobytes() for row, has_value in zip(cells, reported, strict=True)]


def decode_rows(stored: Sequence[Any], metrics: Sequence[str], numbers: Mapping[str, int]) -> dict[str, MetricColumn]:
    """Undo `encode_rows` for these metrics. A damaged row has no values, and the log says so once."""
    if set(map(type, stored)) - {bytes} or any(length % CELL.itemsize for length in set(map(len, stored))):
        stored = tuple(map(_whole, stored))
    wanted = {numbers[name]: at for at, name in enumerate(metrics) if name in numbers}
    shape = len(metrics), len(stored)
    values, reported = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    _decode_cells(stored, wanted, values, reported)
    return {name: MetricColumn.of_arrays(*pair) for name, *pair in zip(metrics, values, reported, strict=True)}


def _decode_cells(stored: Sequence[bytes], wanted: Mapping[int, int], values: Floats, reported: Bools) -> None:
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
    if isinstance(cells, bytes) and len(cells) % CELL.itemsize == 0:
        return cells
    _say_damaged(f"a row of the table steps is damaged, and its values are left out: {cells!r:.80}")
    return b""


@lru_cache(1000)
def _say_damaged(sentence: str) -> None:
    log.warning(sentence)


def encode_floats(values: Floats) -> bytes:
    """float64[N], bit for bit."""
    with np.errstate(invalid="ignore"):
        is_monotonic = bool((values[1:] >= values[:-1]).all() or (values[1:] <= values[:-1]).all())
    return _encode(values.astype("<f8", copy=False), is_monotonic)


def decode_floats(stored: bytes, num_values: int) -> Floats:
    """Undo `encode_floats`. Raises DamagedBlock."""
    return _decode(stored, num_values).view("<f8").astype(np.float64, copy=False)


def encode_steps(steps: Ints) -> bytes:
    """int64[N], rising."""
    return _encode(steps.astype("<i8", copy=False), True)


def decode_steps(stored: bytes, num_values: int) -> Ints:
    """Undo `encode_steps`. Raises DamagedBlock."""
    return _decode(stored, num_values).view("<i8").astype(np.int64, copy=False)


def encode_bits(bits: Bools) -> bytes:
    """bool[N], eight to a byte."""
    return PLAIN + _compressed(np.packbits(bits))


def decode_bits(stored: bytes, num_values: int) -> Bools:
    """Undo `encode_bits`. Raises DamagedBlock."""
    _check_kind(stored, PLAIN)
    packed = np.frombuffer(_decompressed(stored, -(-num_values // 8)), dtype=np.uint8)
    return np.unpackbits(packed, count=num_values).astype(np.bool_)


def _encode(numbers: NDArray[np.float64] | Ints, by_differences: bool) -> bytes:
    bits = np.ascontiguousarray(numbers).view("<u8")
    if by_differences:
        bits = np.diff(bits, prepend=bits.dtype.type(0))
    transposed = np.ascontiguousarray(bits.view(np.uint8).reshape(-1, WIDTH).T)
    return (DIFFERENCES if by_differences else PLAIN) + _compressed(transposed)


def _compressed(numbers: NDArray[np.uint8]) -> bytes:
    found: bytes = ZSTD.compress(numbers, asbytes=True)
    return found


def _decode(stored: bytes, num_values: int) -> NDArray[np.uint64]:
    _check_kind(stored, PLAIN, DIFFERENCES)
    transposed = np.frombuffer(_decompressed(stored, WIDTH * num_values), dtype=np.uint8).reshape(WIDTH, -1)
    bits: NDArray[np.uint64] = np.ascontiguousarray(transposed.T).view("<u8").reshape(-1)
    return np.cumsum(bits, dtype="<u8") if stored[:1] == DIFFERENCES else bits


def _check_kind(stored: bytes, *kinds: bytes) -> None:
    if stored[:1] not in kinds:
        raise DamagedBlock(f"it begins with {stored[:1]!r}, which this release does not know")


def _decompressed(stored: bytes, num_bytes: int) -> bytes:
    try:
        found: bytes = ZSTD.decompress(memoryview(stored)[1:], num_bytes, asbytes=True)
    except (OSError, ValueError) as error:
        raise DamagedBlock(f"it cannot be decompressed ({error})") from None
    if len(found) != num_bytes:
        raise DamagedBlock(f"it holds {len(found)} bytes instead of {num_bytes}")
    return found
