"""Numbers of a block of steps as bytes, exactly, and back. Pure.

The first byte says how they were encoded, so that a later release can do it otherwise. Then comes a zstd frame of the
numbers, little-endian, with the first bytes of all of them before the second ones, and so on: neighbouring values agree
in sign, exponent and the first bits, and what was computed as float32 ends with zeros. Numbers that only rise or only
fall (times, tokens, a learning rate) are replaced by the differences of their bits first.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools

PLAIN, DIFFERENCES = b"\x01", b"\x02"
LEVEL = 1
"""Higher ones of zstd cost more time and save nothing here."""
WIDTH = 8
"""Bytes of a number."""


class DamagedBlock(ValueError):
    """Stored bytes that are not a block, or values that are gone; the message says where."""


def encode_floats(values: Floats) -> bytes:
    """float64[N], bit for bit."""
    return _encode(values.astype("<f8", copy=False), _is_monotonic(values))


def decode_floats(stored: bytes, num_values: int) -> Floats:
    """Undo `encode_floats`. Raises DamagedBlock."""
    found: Floats = _decode(stored, num_values).view("<f8").astype(np.float64, copy=False)
    return found


def encode_steps(steps: Ints) -> bytes:
    """int64[N], rising."""
    return _encode(steps.astype("<i8", copy=False), True)


def decode_steps(stored: bytes, num_values: int) -> Ints:
    """Undo `encode_steps`. Raises DamagedBlock."""
    found: Ints = _decode(stored, num_values).view("<i8").astype(np.int64, copy=False)
    return found


def encode_bits(bits: Bools) -> bytes:
    """bool[N], eight to a byte."""
    return PLAIN + _compressed(np.packbits(bits))


def decode_bits(stored: bytes, num_values: int) -> Bools:
    """Undo `encode_bits`. Raises DamagedBlock."""
    _check_kind(stored, PLAIN)
    packed = np.frombuffer(_decompressed(stored, -(-num_values // 8)), dtype=np.uint8)
    return np.unpackbits(packed, count=num_values).astype(np.bool_)


def _is_monotonic(values: Floats) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((values[1:] >= values[:-1]).all() or (values[1:] <= values[:-1]).all())


def _encode(numbers: NDArray[np.float64] | Ints, by_differences: bool) -> bytes:
    bits = np.ascontiguousarray(numbers).view("<u8")
    if by_differences:
        bits = np.diff(bits, prepend=bits.dtype.type(0))
    transposed = np.ascontiguousarray(bits.view(np.uint8).reshape(-1, WIDTH).T)
    return (DIFFERENCES if by_differences else PLAIN) + _compressed(transposed)


def _compressed(numbers: NDArray[np.uint8]) -> bytes:
    found: bytes = _zstd().compress(numbers, asbytes=True)
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
        found: bytes = _zstd().decompress(memoryview(stored)[1:], num_bytes, asbytes=True)
    except (OSError, ValueError) as error:
        raise DamagedBlock(f"it cannot be decompressed ({error})") from None
    if len(found) != num_bytes:
        raise DamagedBlock(f"it holds {len(found)} bytes instead of {num_bytes}")
    return found


@lru_cache(maxsize=1)
def _zstd() -> pa.Codec:
    return pa.Codec("zstd", compression_level=LEVEL)
