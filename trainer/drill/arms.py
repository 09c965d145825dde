"""What the drill compares Lossguard with: the rules that others follow, as runs of the SDK that order themselves.

nothing      train on
skip_step    leave the update out where loss or gradient norm is 6 sd above the last 128 (OLMo-core, Levanter, MaxText)
fixed_palm   on such a loss, always rewind 100 steps and skip 200 batches from there (PaLM's remedy as a fixed rule)
"""

import math
import statistics
from collections import deque
from typing import Any

from lossguard import Order, OrderKind, Run

WINDOW = 128
SDS = 6.0
PALM_DEPTH = 100  # steps
PALM_SKIP = 200  # batches


class Window:
    """The last 128 values, whatever they were: that an outlier widens it is part of the rule as published."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=WINDOW)

    def is_outlier(self, value: float) -> bool:
        """Judge `value` against those before it, and take it in. Half a window is enough to judge."""
        judged = len(self._values) >= WINDOW // 2 and not self._within(value)
        self._values.append(value)
        return judged

    def _within(self, value: float) -> bool:
        if not all(map(math.isfinite, (value, *self._values))):
            return False  # as there: no comparison with NaN holds, so one NaN means 128 skips
        return value <= statistics.fmean(self._values) + SDS * statistics.stdev(self._values)


class SkipStep:
    """Whether the optimizer may take a step."""

    def __init__(self) -> None:
        self._loss, self._grad_norm = Window(), Window()

    def __call__(self, loss: float, grad_norm: float) -> bool:
        outliers = [self._loss.is_outlier(loss), self._grad_norm.is_outlier(grad_norm)]
        return not any(outliers)


class FixedPalm(Run):
    """Orders its own rollbacks: no patience, no verification, no escalation; a budget, so that it ends."""

    def __init__(self, *, id: str, budget: int) -> None:
        super().__init__(id=id)
        self._budget = budget
        self._window = Window()
        self._order: Order | None = None
        self._batch_of: dict[int, int] = {}

    def log(self, step: int, **metrics: Any) -> None:
        assert self.batch_index is not None
        self._batch_of[step] = self.batch_index
        loss = metrics["loss"]
        outlier = self._window.is_outlier(loss) if math.isfinite(loss) else True
        if outlier and self._budget > 0:
            self._budget -= 1
            rewind_to = max(0, step - PALM_DEPTH)
            skip_from = self._batch_of[rewind_to]
            self._order = Order(
                id=self._budget,
                kind=OrderKind.ROLLBACK,
                rewind_to=rewind_to,
                skip_from=skip_from,
                skip_to=max(skip_from + PALM_SKIP, self.batch_index + 1),
            )

    def take_order(self) -> Order | None:
        order, self._order = self._order, None
        return order
