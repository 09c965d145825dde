"""Arrays and non-finite numbers in JSON, exactly."""

import base64
import math
from typing import Any

import numpy as np

from monitor.detection.rows import Floats


def pack(values: Floats, kind: str = "<f8") -> str:
    """float64[N] as base64 of its little-endian bytes; as "<f4" only what is exact in four bytes."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


def unpack(text: str, kind: str = "<f8") -> Floats:
    """The inverse of `pack`, as an array of its own."""
    return np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)


def plain(value: float) -> float | str:
    """A float as JSON can carry it: non-finite numbers as the words of the wire protocol."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def number(value: Any) -> float:
    """The inverse of `plain` (float() reads those words)."""
    return float(value)
