"""The difference of two runs' held-out losses at equal positions along the x axis. Pure.

A held-out loss is measured every so many steps. Two runs are compared where both were measured; where that is rare
(other evaluation intervals, or other batch sizes on a token axis), the baseline's loss is interpolated linearly between
its two neighbouring measurements. There is no extrapolation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.axes import Floats, StepAxis
from db.queries import Series

HELD_OUT_LOSS, HELD_OUT_BITS_PER_BYTE = "held_out_loss", "held_out_bits_per_byte"
HELD_OUT_LOSS_SE = "held_out_loss_se"
"""The standard error of the held-out loss."""
HELD_OUT_METRICS = (HELD_OUT_LOSS, HELD_OUT_LOSS_SE, HELD_OUT_BITS_PER_BYTE)
"""Metrics that are measured at few steps: smoothing would only add lag."""
HELD_OUT_DIFFERENCE = "held_out_difference"
"""A derived curve, never stored."""
TOLERANCE = 1e-9
"""Positions of two runs are equal when they differ by less than this share of the axis: token counts are rounded."""


@dataclass(frozen=True, slots=True)
class HeldOutCurve:
    """Held-out losses at rising positions along the x axis; NaN where one was not finite."""

    x: Floats
    y: Floats

    @classmethod
    def from_series(cls, series: Series, step_axis: StepAxis) -> "HeldOutCurve":
        """The last measurement of each bucket; every measurement where there are few.

        A bucket with a value that is not finite is NaN: the store does not say which of its values that was.
        """
        last = np.array(series.last, dtype=np.float64)
        return cls(step_axis.at(series.last_step), np.where(np.array(series.non_finite, dtype=bool), np.nan, last))


@dataclass(frozen=True, slots=True)
class Difference:
    """A held-out loss minus the baseline's; not finite where one of the two was not, or where both are huge."""

    x: Floats
    y: Floats
    exact: bool
    """True if both were measured at all these positions; otherwise the baseline is interpolated."""


def difference(own: HeldOutCurve, baseline: HeldOutCurve) -> Difference:
    """Return the difference at positions that both runs have reached; empty when there are none."""
    if not len(own.x) or not len(baseline.x):
        return Difference(np.empty(0), np.empty(0), True)
    slack = TOLERANCE * max(own.x[-1], baseline.x[-1])
    inside = _within(own.x, baseline.x, slack)
    near = _nearest(baseline.x, own.x)
    common = np.abs(baseline.x[near] - own.x) <= slack
    fewer = min(np.count_nonzero(inside), np.count_nonzero(_within(baseline.x, own.x, slack)))
    if common.any() and 2 * np.count_nonzero(common) >= fewer:
        return Difference(own.x[common], _minus(own.y[common], baseline.y[near[common]]), True)
    between = np.interp(own.x[inside], baseline.x, baseline.y)
    return Difference(own.x[inside], _minus(own.y[inside], between), False)


def _minus(own: Floats, baseline: Floats) -> Floats:
    """Return the difference; infinite if that of two huge losses is no float."""
    with np.errstate(over="ignore"):
        return own - baseline


def _within(x: Floats, other: Floats, slack: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (x >= other[0] - slack) & (x <= other[-1] + slack)
    return inside


def _nearest(positions: Floats, x: Floats) -> NDArray[np.int64]:
    """Return for each of `x` the index of the nearest of `positions`."""
    right = np.searchsorted(positions, x).clip(max=len(positions) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(positions[left] - x) <= np.abs(positions[right] - x), left, right)
