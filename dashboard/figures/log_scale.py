"""Which panels have a log axis: some always, some where a spike would flatten everything else. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboard.figures.style import LOG_AXES

SOMETIMES = ("loss", "log_z")
TIMES = 10
"""The median, from which on a largest value is shown on a log axis: on a linear one, the rest is a line on the axis."""


def log_axes(drawn: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """`drawn`: by metric the columns of what its panel shows, None and NaN for what it does not."""
    return LOG_AXES | {name for name in SOMETIMES if name in drawn and _towering(drawn[name])}


def _towering(columns: Sequence[Any]) -> bool:
    values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns]) if columns else np.zeros(0)
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() > TIMES * np.median(values))
