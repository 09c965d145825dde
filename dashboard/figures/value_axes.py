"""Scale and range of the value axis of each panel: from its live line, and from what the viewer chose. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dashboard.figures.axis import Floats
from dashboard.figures.frame import Range, axis_range
from dashboard.figures.log_scale import AUTO_LOG, always_log, log_axes
from dashboard.figures.placed_line import PlacedLine, extent


class Scale(StrEnum):
    """Of a value axis."""

    AUTO = "auto"  # as the metric registry says
    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class AxisChoices:
    """What a viewer chose for the value axes, by metric; the others are as the metric registry says."""

    log: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    fit_all: frozenset[str] = frozenset()
    """Those that show all values, and not only what the live line needs."""

    def of(self, metrics: Collection[str]) -> "AxisChoices":
        """Those for some metrics."""
        return AxisChoices(*(chosen.intersection(metrics) for chosen in (self.log, self.linear, self.fit_all)))

    def scale(self, metric: str) -> Scale:
        return Scale.LOG if metric in self.log else Scale.LINEAR if metric in self.linear else Scale.AUTO

    def changed(self, metric: str, scale: Scale, *, fit_all: bool) -> "AxisChoices":
        """With other choices for one metric."""

        def chosen(names: frozenset[str], *, is_chosen: bool) -> frozenset[str]:
            return names | {metric} if is_chosen else names - {metric}

        return AxisChoices(
            log=chosen(self.log, is_chosen=scale is Scale.LOG),
            linear=chosen(self.linear, is_chosen=scale is Scale.LINEAR),
            fit_all=chosen(self.fit_all, is_chosen=fit_all),
        )


@dataclass(frozen=True, slots=True)
class ValueAxes:
    log: frozenset[str]
    """The metrics with a log axis."""
    ranges: Mapping[str, Range]
    """By metric; one without a range shows all values."""


def value_axes(
    live: Mapping[str, Sequence[PlacedLine]], lines: Mapping[str, Sequence[PlacedLine]], choices: AxisChoices
) -> ValueAxes:
    """By metric: `live` are the lines that its axis is made for, `lines` all that are drawn."""
    log, ranges = set(), {}
    for metric in lines:
        fit_all = metric in choices.fit_all
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
    """By the metric registry; a few extreme values do not decide it."""
    if metric not in AUTO_LOG:
        return metric in always_log({metric: [high]})
    bounds = axis_range(low, high, log=False)
    largest = np.inf if bounds is None else bounds[1]
    return metric in log_axes({metric: [column[~(column > largest)] for column in (low, high)]})
