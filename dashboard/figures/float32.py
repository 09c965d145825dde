"""Numbers of a figure in half the bytes, where that loses nothing that can be seen. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.figures.axis import Floats

LARGEST = float(np.finfo(np.float32).max)


def as_float32(values: Floats) -> NDArray[Any]:
    """In single precision; as they are where one is too large for it: the perplexity of a loss above 88.7 is."""
    largest = np.fmax.reduce(np.abs(values), axis=None, initial=0.0)
    return values if largest > LARGEST else values.astype(np.float32)
