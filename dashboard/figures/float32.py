"""A figure's numbers in single precision, half the bytes, where the difference cannot be seen. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.figures.axis import Floats

MAX_FLOAT32 = float(np.finfo(np.float32).max)


def as_float32(values: Floats) -> NDArray[Any]:
    """In single precision; unchanged where one value is too large for it, as the perplexity of a loss above 88.7 is."""
    largest = np.fmax.reduce(np.abs(values), axis=None, initial=0.0)
    return values if largest > MAX_FLOAT32 else values.astype(np.float32)
