"""The bounds of the gate: from losses and gradient norms of recent steps to the largest values that a step may have.

Plain numbers in, plain numbers out; `lossguard.torch.Gate` applies them on the device. OLMo-core's SkipStepOptimizer
skips a step by mean and standard deviation of the last 128; here median and median absolute deviation of accepted steps
stand for them, which an outlier does not widen, and the norm is judged by its logarithm.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lossguard.vocabulary.metrics import MAX_SKIPPED, SKIP_WINDOW

DEVIATIONS = 12.0
"""Robust standard deviations above its level from which on a finite value is refused."""
WINDOW = 128
"""Accepted steps that the level is taken over."""
MIN_VALUES = 32
"""Accepted steps from which on there is a bound; before, only values that are not finite are refused."""
MAD_TO_DEVIATION = 1.4826
"""Ratio of the standard deviation of a normal distribution to its median absolute deviation."""


@dataclass(slots=True)
class Bound:
    """The bound of one signal: the median of its last accepted values, and so many robust deviations above it."""

    log: bool
    """True if the logarithm is judged: the noise of a norm is multiplicative."""
    min_noise: float
    """Lower bound of the noise: of the logarithm, or as a fraction of the level."""
    values: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def accept(self, value: float) -> None:
        """Learn a finite value of a step that was taken."""
        self.values.append(math.log(max(value, 1e-30)) if self.log else value)

    def limit(self, deviations: float) -> float:
        """The largest value that is accepted; infinite as long as too few values are known."""
        if len(self.values) < MIN_VALUES:
            return math.inf
        level = median(self.values)
        noise = MAD_TO_DEVIATION * median(abs(value - level) for value in self.values)
        limit = level + deviations * max(noise, self.min_noise * (1.0 if self.log else abs(level)))
        if self.log:
            return math.exp(limit) if limit < 700.0 else math.inf
        return limit


class GateBounds:
    """The bounds of loss and gradient norm, and the cap. `state_dict` / `load_state_dict` are exact.

    `deviations`: see DEVIATIONS. Raises ValueError unless it is above 0.
    """

    def __init__(self, deviations: float = DEVIATIONS) -> None:
        if not deviations > 0:
            raise ValueError(f"deviations={deviations!r} must be above 0")
        self.deviations = deviations
        self.num_skipped = 0
        """Updates that were skipped on the line that led here."""
        self.reset()

    def reset(self) -> None:
        """Forget the past: until MIN_VALUES steps are accepted, only values that are not finite are refused."""
        self._loss, self._grad_norm = Bound(log=False, min_noise=0.01), Bound(log=True, min_noise=0.1)
        self._recent: deque[bool] = deque(maxlen=SKIP_WINDOW)  # whether the update was skipped, of the last steps

    def observe(self, loss: float, grad_norm: float, *, skipped: bool) -> bool:
        """Take in one step. Returns whether its skip reached the cap while there was a bound: it is learnt anew then.

        Without that, a run whose level has risen for good would never take a step again.
        """
        self._recent.append(skipped)
        self.num_skipped += skipped
        if not skipped:
            self._loss.accept(loss)
            self._grad_norm.accept(grad_norm)
        elif sum(self._recent) >= MAX_SKIPPED and math.isfinite(self.limits()[0]):
            self.reset()
            return True
        return False

    def limits(self) -> tuple[float, float]:
        """The largest loss and the largest gradient norm that are accepted, if they are finite."""
        return self._loss.limit(self.deviations), self._grad_norm.limit(self.deviations)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        bounds = {"loss": list(self._loss.values), "log_grad_norm": list(self._grad_norm.values)}
        return bounds | {"recent": list(map(int, self._recent)), "num_skipped": self.num_skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`; an empty state is that of a new gate."""
        self.reset()
        self._loss.values.extend(state.get("loss", ()))
        self._grad_norm.values.extend(state.get("log_grad_norm", ()))
        self._recent.extend(map(bool, state.get("recent", ())))
        self.num_skipped = int(state.get("num_skipped", 0))
