"""Robust statistics of a few values; plain functions of arrays."""

import numpy as np

from monitor.detection.rows import Floats


def robust_std(residuals: Floats) -> Floats:
    """Median absolute deviation from zero, scaled to a normal standard deviation (Hampel 1974), of each row."""
    magnitudes = np.abs(residuals)
    magnitudes.sort()
    return 1.4826 * _middle(magnitudes)


def median(values: Floats) -> Floats:
    """The median of each row. np.median is ten times slower on so few values."""
    ordered = values.copy()
    ordered.sort()
    return _middle(ordered)


def _middle(ordered: Floats) -> Floats:
    half = ordered.shape[-1] // 2
    upper: Floats = ordered[..., half]
    return upper if ordered.shape[-1] % 2 else (ordered[..., half - 1] + upper) / 2.0
