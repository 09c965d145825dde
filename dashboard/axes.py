"""Positions of a run's steps along the x axis, and the choices of a viewer for all axes. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class AxisScale(StrEnum):
    AUTO = "auto"  # as the metric registry says
    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class AxisChoices:
    """Value axes that a viewer chose, by metric; the others are as the metric registry says."""

    log: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    fit_all: frozenset[str] = frozenset()
    """Metrics that show all values, and not only what the live line needs."""

    def of(self, metrics: Collection[str]) -> "AxisChoices":
        return AxisChoices(*(chosen.intersection(metrics) for chosen in (self.log, self.linear, self.fit_all)))

    def scale(self, metric: str) -> AxisScale:
        return AxisScale.LOG if metric in self.log else AxisScale.LINEAR if metric in self.linear else AxisScale.AUTO

    def changed(self, metric: str, scale: AxisScale, *, fit_all: bool) -> "AxisChoices":
        """Return the choices with another scale for one metric."""

        chosen = (self.log, scale is AxisScale.LOG), (self.linear, scale is AxisScale.LINEAR), (self.fit_all, fit_all)
        return AxisChoices(*(names | {metric} if is_chosen else names - {metric} for names, is_chosen in chosen))


# The x axis: steps, tokens, wall time or FLOPs.

Floats = NDArray[np.float64]


class XAxis(StrEnum):
    STEP = "step"
    TOKENS = "tokens"
    TIME = "time"  # wall time: milliseconds since 1970 on the viewer's clock, as plotly's date axes have them
    FLOPS = "flops"  # 6ND


@dataclass(frozen=True, slots=True)
class StepAxis:
    """Maps steps to positions along an x axis, linear between known points. Both columns rise."""

    steps: Floats
    positions: Floats

    @classmethod
    def through(cls, points: Mapping[int, float]) -> "StepAxis":
        """An axis through these points (step -> position); PLAIN_STEPS without any."""
        steps = sorted(points)
        if not steps:
            return PLAIN_STEPS
        return cls(np.array(steps, dtype=np.float64), np.array([points[step] for step in steps], dtype=np.float64))

    def at(self, steps: Sequence[float]) -> Floats:
        """Return the positions of these steps; beyond the known steps, the position of the first or the last."""
        return np.interp(np.asarray(steps, dtype=np.float64), self.steps, self.positions)

    def step_at(self, position: float) -> float:
        """The inverse of `at`."""
        # Positions do not rise when a clock is put back in autumn.
        return float(np.interp(position, np.maximum.accumulate(self.positions), self.steps))

    def mapped(self, transform: Callable[[Floats], Floats]) -> "StepAxis":
        return StepAxis(self.steps, transform(self.positions))


def compact(positions: Any) -> NDArray[Any]:
    """Positions as a figure holds them: in int32, half the bytes, where all are whole and small; else in float64.

    There is no int64 in plotly: a step beyond 2^31 is a float64, which is exact up to 2^53.
    """
    floats = np.asarray(positions, dtype=np.float64)
    fits = (np.abs(floats) < 2**31) & (floats == np.trunc(floats))
    return floats.astype(np.int32) if fits.all() else floats


PLAIN_STEPS = StepAxis(np.array([-1.0, 2.0**53]), np.array([-1.0, 2.0**53]))
"""Every step at its own number."""


@dataclass(frozen=True, slots=True)
class RunAxes:
    """The step axes of a run: of its live line, and of each discarded branch by number of its segment.

    A branch without the metric of the axis has none of its own: it is placed on that of the live line.
    """

    live: StepAxis = PLAIN_STEPS
    branches: Mapping[int, StepAxis] = field(default_factory=dict)

    def mapped(self, transform: Callable[[Floats], Floats]) -> "RunAxes":
        return RunAxes(
            self.live.mapped(transform), {segment: axis.mapped(transform) for segment, axis in self.branches.items()}
        )

    def at(self, segment: int, step: float) -> float:
        """Position of a step of a segment, on the discarded branch when the step lies there."""
        branch = self.branches.get(segment)
        on_branch = branch is not None and len(branch.steps) > 0 and step >= branch.steps[0]
        axis = branch if branch is not None and on_branch else self.live
        return float(axis.at([step])[0])
