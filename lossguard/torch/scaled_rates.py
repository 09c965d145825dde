"""The learning rates of one optimizer step, times the factor that an order or a remedy has set."""

from typing import Any

from torch.optim import Optimizer


class ScaledRates:
    """Scales the rates before a step, and undoes it after it: a schedule may compute its next value from them."""

    def __init__(self) -> None:
        self._given: list[Any] = []  # numbers or 0-dim tensors; empty between two steps, and where nothing is scaled

    def scale(self, optimizer: Optimizer, factor: float) -> None:
        """Call it before `optimizer.step()`."""
        if factor != 1.0:
            self._given = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor

    def undo(self, optimizer: Optimizer) -> None:
        """Call it after `optimizer.step()`."""
        if self._given:
            for group, rate in zip(optimizer.param_groups, self._given, strict=True):
                group["lr"] = rate
            self._given = []
