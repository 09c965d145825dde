"""Choice of the panels with a log axis: some always, some if a spike would flatten everything else. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboard.axes import Floats
from lossguard.vocabulary.metrics import METRICS, LogAxis

ALWAYS_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.ALWAYS)
AUTO_LOG = frozenset(metric.name for metric in METRICS if metric.log_axis is LogAxis.AUTO)
PEAK_RATIO = 10
"""Ratio of the largest value to the median above which a linear axis would flatten the rest of the curve."""


def log_axes(columns: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """Metrics with a log axis; `columns`: by metric what its panel shows, None and NaN for gaps."""
    return always_log(columns) | {name for name in AUTO_LOG if name in columns and _has_high_peak(columns[name])}


def always_log(columns: Mapping[str, Sequence[Any]]) -> frozenset[str]:
    """Metrics that have a log axis whatever their values are, except where it could show none of them."""
    return frozenset(name for name in ALWAYS_LOG if not len(found := _finite(columns.get(name, ()))) or found.max() > 0)


def _has_high_peak(columns: Sequence[Any]) -> bool:
    values = _finite(columns)
    if not len(values) or values.min() <= 0:
        return False
    # The lower median of an even number of values: no sum, and so no overflow.
    return bool(values.max() / PEAK_RATIO > np.quantile(values, 0.5, method="lower"))


def _finite(columns: Sequence[Any]) -> Floats:
    values: Floats = np.concatenate([np.empty(0), *(np.asarray(column, dtype=np.float64) for column in columns)])
    return values[np.isfinite(values)]
