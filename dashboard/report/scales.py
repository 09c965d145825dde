"""The axes of a picture: positions of values, and ticks. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.figures.axis import Floats

PADDING = 0.05
"""Free share of the value range at both ends."""
EPSILON = 1e-9
MAX_TICK_LETTERS = 8
"""As many as fit in the margin."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from `low` to `high` (exponents of ten on a log axis) to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: tuple[str, ...] = ()
    """Categories at the values 0, 1, ..; empty on an axis of numbers."""

    def at(self, values: Any) -> Floats:
        """Positions of these values; NaN where one has none."""
        if self.names:
            numbers = np.array([self.names.index(value) for value in values], dtype=np.float64)
        else:
            numbers = np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                numbers = np.where(numbers > 0, np.log10(numbers), np.nan)
        return self.start + (numbers - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, max_ticks: int) -> list[float]:
        """About `max_ticks` round values at most."""
        if self.names:
            return list(range(len(self.names)))
        return _log_ticks(self.low, self.high, max_ticks) if self.log else _linear_ticks(self.low, self.high, max_ticks)


def scale_for(values: Sequence[Floats], bounds: Any, start: float, end: float, *, log: bool, padding: float) -> Scale:
    """A scale for all finite `values`, or from `bounds[0]` to `bounds[1]` where there are bounds."""
    if bounds is not None:
        return Scale(float(bounds[0]), float(bounds[1]), start, end, log)
    finite = np.concatenate([np.asarray(column, dtype=np.float64) for column in values]) if values else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    if log:
        finite = np.log10(finite[finite > 0])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if high - low <= EPSILON * max(abs(low), abs(high)):  # a single value goes to the middle
        room = abs(low) / 2 or 1.0
        return Scale(low - room, high + room, start, end, log)
    room = padding * (high - low)
    return Scale(low - room, high + room, start, end, log)


def tick_text(value: float, form: str | None) -> str:
    """A tick in `form`, one of the d3 formats that the figures use."""
    if form == ",d":
        return f"{value:,.0f}"
    if form == ".0%":
        return f"{value:.0%}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    if form == "~s":
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.4g}{unit}"
    text = f"{value:.6g}"
    if len(text) <= MAX_TICK_LETTERS:
        return text
    digits, _, power = f"{value:.4e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _linear_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    exact = (high - low) / max(1, max_ticks)
    unit = 10.0 ** math.floor(math.log10(exact))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= exact * (1 - EPSILON))
    first, last = math.ceil(low / step - EPSILON), math.floor(high / step + EPSILON)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Powers of ten, with their multiples by 2 and 5 where few are in view; linear ticks within one power."""
    if high - low < 0.7:
        return [value for value in _linear_ticks(10**low, 10**high, max_ticks) if value > 0]
    every = max(1, math.ceil((high - low) / max(1, max_ticks)))
    factors = (1, 2, 5) if high - low < 0.5 * max_ticks else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [value for value in found if low - EPSILON <= math.log10(value) <= high + EPSILON]
