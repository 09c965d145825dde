"""Smoothed lines: an exponential moving average over steps, whatever the buckets' width. Pure."""

import math

import numpy as np

from dashboard.figures.axis import Floats
from db.queries import Series


def smoothed(series: Series, span: int) -> Floats:
    """The buckets' means, averaged with weights that fall to 1/e in `span` steps; NaN where a bucket has none.

    The first value starts the average at its full weight, corrected for the weight that is still missing (as Adam
    does), so that a line does not start at zero. A gap neither teaches nor resets it.
    """
    average, weight, before = 0.0, 0.0, None
    line = np.full(len(series), np.nan)
    for index, (step, mean) in enumerate(zip(series.last_step, series.mean, strict=True)):
        if mean is None or not math.isfinite(mean):
            continue
        keep = math.exp(-(step - before) / span) if before is not None else 0.0
        fresh = max(1 - keep, 1e-9) if before is not None else 1 - math.exp(-1 / span)
        average, weight, before = keep * average + fresh * mean, keep * weight + fresh, step
        line[index] = average / weight
    return line
