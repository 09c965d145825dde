"""Where a run's steps lie along the axis that a viewer chose: steps, tokens, wall time or FLOPs. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Along(StrEnum):
    """What the x axis counts."""

    STEP = "step"
    TOKENS = "tokens"
    TIME = "time"  # wall time: milliseconds since 1970 on the viewer's clock, as plotly's date axes have them
    FLOPS = "flops"  # 6ND


@dataclass(frozen=True, slots=True)
class Ruler:
    """Positions of steps, straight between those that are known. Both columns rise."""

    steps: Floats
    positions: Floats

    @classmethod
    def of(cls, points: Mapping[int, float]) -> "Ruler":
        """A ruler through these points (step -> position); PLAIN without any."""
        steps = sorted(points)
        if not steps:
            return PLAIN
        return cls(np.array(steps, dtype=np.float64), np.array([points[step] for step in steps], dtype=np.float64))

    def at(self, steps: Sequence[float]) -> Floats:
        """Positions of these steps; beyond the ends the end's."""
        return np.interp(np.asarray(steps, dtype=np.float64), self.steps, self.positions)

    def step_at(self, position: float) -> float:
        # Where a clock is put back in autumn, positions do not rise.
        return float(np.interp(position, np.maximum.accumulate(self.positions), self.steps))

    def moved(self, move: Callable[[Floats], Floats]) -> "Ruler":
        """The same steps at other positions."""
        return Ruler(self.steps, move(self.positions))


PLAIN = Ruler(np.array([-1.0, 2.0**53]), np.array([-1.0, 2.0**53]))
"""The steps themselves."""


@dataclass(frozen=True, slots=True)
class Rulers:
    """The rulers of a run: of its live line, and of each discarded branch by number of its segment."""

    live: Ruler = PLAIN
    branches: Mapping[int, Ruler] = field(default_factory=dict)

    def moved(self, move: Callable[[Floats], Floats]) -> "Rulers":
        return Rulers(self.live.moved(move), {segment: ruler.moved(move) for segment, ruler in self.branches.items()})

    def at(self, segment: int, step: float) -> float:
        """Position of a step of a segment: on the discarded part when it lies there."""
        branch = self.branches.get(segment)
        on_branch = branch is not None and len(branch.steps) > 0 and step >= branch.steps[0]
        ruler = branch if branch is not None and on_branch else self.live
        return float(ruler.at([step])[0])
