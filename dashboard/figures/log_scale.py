"""Which panels have a log axis: some always, some where a spike would flatten everything else. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lossguard.metrics import METRICS, LogAxis

ALWAYS_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.ALWAYS)
AUTO_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.AUTO)
PEAK_RATIO = 10
"""Ratio of the largest value to the median above which a linear axis would flatten the rest of the curve."""


def log_axes(columns: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """Metrics with a log axis; `columns`: by metric what its panel shows, None and NaN for gaps."""
    return ALWAYS_LOG | {name for name in AUTO_LOG if name in columns and _has_high_peak(columns[name])}


def _has_high_peak(columns: Sequence[Any]) -> bool:
    values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns]) if columns else np.zeros(0)
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() > PEAK_RATIO * np.median(values))
