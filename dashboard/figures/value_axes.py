"""Scale and range of the value axis of each panel: from its live line, and from what the viewer chose. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dashboard.axes import AxisChoices, Floats
from dashboard.figures.frame import Range, axis_range
from dashboard.figures.log_scale import AUTO_LOG, always_log, log_axes
from dashboard.figures.placed_line import PlacedLine, extent

NEVER_CLIPPED = frozenset({"lr"})
"""Metrics that the loop chooses itself: no value of them is an accident."""


@dataclass(frozen=True, slots=True)
class ValueAxes:
    log: frozenset[str]
    """The metrics with a log axis."""
    ranges: Mapping[str, Range]
    """Ranges by metric; a metric without a range shows all values."""


def value_axes(
    live: Mapping[str, Sequence[PlacedLine]], lines: Mapping[str, Sequence[PlacedLine]], choices: AxisChoices
) -> ValueAxes:
    """Return the axes by metric: `live` are the lines that an axis is made for, `lines` all that are drawn."""
    log, ranges = set(), {}
    for metric in lines:
        fit_all = metric in choices.fit_all or metric in NEVER_CLIPPED
        low, high = extent(live[metric])
        if fit_all or not np.isfinite(high).any():
            low, high = extent(lines[metric])
        is_log = metric in choices.log or (metric not in choices.linear and _is_log(metric, low, high))
        if is_log:
            log.add(metric)
        found = axis_range(low, high, log=is_log, fit_all=fit_all)
        if found is not None:
            ranges[metric] = found
    return ValueAxes(frozenset(log), ranges)


def _is_log(metric: str, low: Floats, high: Floats) -> bool:
    """Decide by the metric registry; a few extreme values do not decide it."""
    if metric not in AUTO_LOG:
        return metric in always_log({metric: [high]})
    bounds = axis_range(low, high, log=False)
    largest = np.inf if bounds is None else bounds[1]
    return metric in log_axes({metric: [column[~(column > largest)] for column in (low, high)]})
