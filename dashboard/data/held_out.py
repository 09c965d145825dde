"""Held-out losses beside each other: their difference where runs stand at the same place, and what they come to. Pure.

A held-out loss is measured now and then. Two runs are compared where both were measured; where that is seldom (they
were evaluated at other intervals, or with other batch sizes along tokens), the baseline's loss is taken on the straight
line between its two neighbouring measurements. Nothing is told beyond the last one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.figures.axis import Floats, StepAxis
from db.queries import Series

HELD_OUT_LOSS, HELD_OUT_BITS_PER_BYTE = "held_out_loss", "held_out_bits_per_byte"
HELD_OUT_METRICS = (HELD_OUT_LOSS, HELD_OUT_BITS_PER_BYTE)
"""Not of every step: an average over steps would only lag behind."""
HELD_OUT_DIFFERENCE = "held_out_difference"
"""As a curve: derived, never stored."""
SAME = 1e-9
"""Places of two runs that are nearer than this share of the axis are the same: counted tokens carry rounding."""


@dataclass(frozen=True, slots=True)
class HeldOutCurve:
    """Held-out losses at places along the axis, which rise; NaN where one was not finite."""

    x: Floats
    y: Floats

    @classmethod
    def from_series(cls, series: Series, step_axis: StepAxis) -> "HeldOutCurve":
        """The last measurement of each bucket, which is each of them where there are few.

        Which of a bucket's was not finite is not kept: where one was, there may be no last value.
        """
        last = np.array(series.last, dtype=np.float64)
        return cls(step_axis.at(series.last_step), np.where(np.array(series.non_finite, dtype=bool), np.nan, last))


@dataclass(frozen=True, slots=True)
class Difference:
    """A held-out loss minus the baseline's; NaN where one of the two was not finite."""

    x: Floats
    y: Floats
    exact: bool
    """Whether both were measured at all these places; else the baseline is interpolated."""


def difference(own: HeldOutCurve, baseline: HeldOutCurve) -> Difference:
    """Where both runs have been; empty when that is nowhere."""
    if not len(own.x) or not len(baseline.x):
        return Difference(np.empty(0), np.empty(0), True)
    slack = SAME * max(own.x[-1], baseline.x[-1])
    inside = _within(own.x, baseline.x, slack)
    near = _nearest(baseline.x, own.x)
    common = np.abs(baseline.x[near] - own.x) <= slack
    fewer = min(np.count_nonzero(inside), np.count_nonzero(_within(baseline.x, own.x, slack)))
    if common.any() and 2 * np.count_nonzero(common) >= fewer:
        return Difference(own.x[common], own.y[common] - baseline.y[near[common]], True)
    between = np.interp(own.x[inside], baseline.x, baseline.y)
    return Difference(own.x[inside], own.y[inside] - between, False)


def _within(x: Floats, other: Floats, slack: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (x >= other[0] - slack) & (x <= other[-1] + slack)
    return inside


def _nearest(places: Floats, x: Floats) -> NDArray[np.int64]:
    """For each of `x` the index of the nearest of `places`."""
    right = np.searchsorted(places, x).clip(max=len(places) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(places[left] - x) <= np.abs(places[right] - x), left, right)
