"""Jumps of a training loss, counted by one rule. Pure.

The rule, with m the mean of 5 losses: a jump begins where m exceeds 1.5 times the level, and by at least 0.1 nats. The
level is the median of m over the 50 steps before. The jump ends at the first step at which m is back within 1.1 times
that level; its size is the largest m, relative to the level. A number that is not finite is an infinite loss.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MEAN_STEPS = 5
LEVEL_STEPS = 50
RISE = 1.5
MIN_RISE = 0.1  # nats per token
BACK = 1.1


@dataclass(frozen=True, slots=True)
class Jump:
    """One jump. Losses are means of 5 steps, in nats per token."""

    begin: int
    """The first step above the bound."""
    end: int
    """The first step that is back, or the number of steps where the run ends before."""
    level: float
    """The loss before."""
    peak: float

    @property
    def size(self) -> float:
        """The peak relative to the level."""
        return self.peak / self.level

    @property
    def num_steps(self) -> int:
        """Steps during which the loss was above its earlier level: they are lost to the training."""
        return self.end - self.begin


def find_jumps(losses: Sequence[float]) -> list[Jump]:
    """Return all jumps, in order. The first possible one begins after 55 steps."""
    means = means_of_steps([loss if math.isfinite(loss) else math.inf for loss in losses])
    jumps: list[Jump] = []
    step = LEVEL_STEPS + MEAN_STEPS
    while step < len(means):
        level = statistics.median(means[step - LEVEL_STEPS : step])
        if not means[step] > max(RISE * level, level + MIN_RISE):
            step += 1
            continue
        end = next((t for t in range(step, len(means)) if means[t] <= BACK * level), len(means))
        jumps.append(Jump(step, end, level, max(means[step:end])))
        step = end + 1
    return jumps


def means_of_steps(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and the four before it, fewer at the beginning."""
    return [statistics.fmean(losses[max(0, t + 1 - MEAN_STEPS) : t + 1]) for t in range(len(losses))]
