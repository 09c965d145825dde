"""Strategies of other projects, which the drill compares with Lossguard.

nothing      continue training
skip_step    skip the update if loss or gradient norm is 6 sd above the last 128 (OLMo-core, Levanter, MaxText)
fixed_palm   on such a loss, always rewind 100 steps and skip 200 batches from there (PaLM's remedy as a fixed rule)
"""

import math
import statistics
from collections import deque
from typing import Any

from lossguard import Order, OrderKind, Run

WINDOW_SIZE = 128
MAX_DEVIATIONS = 6.0  # standard deviations
PALM_REWIND_STEPS = 100
PALM_SKIP_BATCHES = 200


class Window:
    """The last 128 values, outliers included: as published, an outlier widens the tolerance."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=WINDOW_SIZE)

    def is_outlier(self, value: float) -> bool:
        """Compare `value` with those before it, then add it. Half a window is enough for the comparison."""
        is_outlier = len(self._values) >= WINDOW_SIZE // 2 and not self._within(value)
        self._values.append(value)
        return is_outlier

    def _within(self, value: float) -> bool:
        if not all(map(math.isfinite, (value, *self._values))):
            return False  # as published: comparisons with NaN are false, so one NaN means 128 skips
        return value <= statistics.fmean(self._values) + MAX_DEVIATIONS * statistics.stdev(self._values)


class SkipStep:
    """Whether the optimizer may take a step, for `Job.accepts`."""

    def __init__(self) -> None:
        self._loss, self._grad_norm = Window(), Window()

    def __call__(self, loss: float, grad_norm: float) -> bool:
        outliers = [self._loss.is_outlier(loss), self._grad_norm.is_outlier(grad_norm)]
        return not any(outliers)


class FixedPalm(Run):
    """A run that orders its own rollbacks: no patience, no verification, no escalation; a budget, so that it ends."""

    def __init__(self, *, budget: int) -> None:
        super().__init__(id="fixed_palm")
        self._budget = budget
        self._window = Window()
        self._order: Order | None = None
        self._batch_of_step: dict[int, int] = {}

    def log(self, step: int, **metrics: Any) -> None:
        assert self.batch_index is not None
        self._batch_of_step[step] = self.batch_index
        loss = metrics["loss"]
        is_outlier = self._window.is_outlier(loss) if math.isfinite(loss) else True
        if is_outlier and self._budget > 0:
            self._budget -= 1
            rewind_to = max(0, step - PALM_REWIND_STEPS)
            skip_from = self._batch_of_step[rewind_to]
            self._order = Order(
                id=self._budget,
                key=str(self._budget),
                kind=OrderKind.ROLLBACK,
                rewind_to=rewind_to,
                skip_from=skip_from,
                skip_to=max(skip_from + PALM_SKIP_BATCHES, self.batch_index + 1),
            )

    def take_order(self) -> Order | None:
        order, self._order = self._order, None
        return order
