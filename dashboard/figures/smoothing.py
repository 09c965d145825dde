"""Smoothed lines: an exponential moving average over steps, whatever the width of the buckets. Pure."""

import math

import numpy as np

from dashboard.axes import Floats
from db.queries import Series


def smoothed(series: Series, span: int) -> Floats:
    """The average of the buckets' means with weights that fall to 1/e in `span` steps; NaN where a bucket has none.

    The average is divided by the weight it has so far (the bias correction of Adam), so that a line does not start at
    zero. A gap does not reset it.
    """
    average, weight, previous_step = 0.0, 0.0, None
    line = np.full(len(series), np.nan)
    for index, (step, mean) in enumerate(zip(series.last_step, series.mean, strict=True)):
        if mean is None or not math.isfinite(mean):
            continue
        decay = math.exp(-(step - previous_step) / span) if previous_step is not None else 0.0
        gain = max(1 - decay, 1e-9) if previous_step is not None else 1 - math.exp(-1 / span)
        average, weight, previous_step = decay * average + gain * mean, decay * weight + gain, step
        line[index] = average / weight
    return line
