"""The axes of a picture: positions of values, and ticks. Pure."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard import formatting
from dashboard.axes import Floats

PADDING = 0.05
"""Free share of the value range at both ends."""
FAR = 1000.0
"""In widths of an axis: positions farther outside of it are as far as this."""
EPSILON = 1e-9
EXACT = 2.0**-50
"""Resolution of an axis of steps: ten of them near 2^53 are a range."""
TINY = 1e-300
"""A range of values below it is taken for a single value: the steps between its ticks would be no floats."""
LARGEST = float(np.finfo(np.float64).max)
MIN_POWER, MAX_POWER = -323, 308
"""Powers of ten that are floats."""
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
        return self.start + self._shares(numbers) * (self.end - self.start)

    def _shares(self, numbers: Floats) -> Floats:
        """0 at `low`, 1 at `high`; in units of a power of two, since the range may be wider than any float."""
        unit = -math.frexp(max(abs(self.low), abs(self.high)))[1] - 1
        low, high = math.ldexp(self.low, unit), math.ldexp(self.high, unit)
        with np.errstate(over="ignore"):
            shares = (np.ldexp(numbers, unit) - low) / (high - low)
        return np.clip(shares, -FAR, FAR)

    def ticks(self, max_ticks: int) -> list[float]:
        """About `max_ticks` round values at most."""
        if self.names:
            return list(range(len(self.names)))
        return _log_ticks(self.low, self.high, max_ticks) if self.log else _linear_ticks(self.low, self.high, max_ticks)


def scale_for(
    values: Sequence[Floats],
    bounds: Any,
    start: float,
    end: float,
    *,
    log: bool,
    padding: float,
    resolution: float = EPSILON,
) -> Scale:
    """A scale for all finite `values`, or from `bounds[0]` to `bounds[1]` where there are bounds.

    Values that differ by less than a share of `resolution` are taken for one.
    """
    if bounds is not None:
        return Scale(float(bounds[0]), float(bounds[1]), start, end, log)
    finite = np.concatenate([np.asarray(column, dtype=np.float64) for column in values]) if values else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    if log:
        finite = np.log10(finite[finite > 0])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if high - low <= max(resolution * max(abs(low), abs(high)), TINY):  # a single value goes to the middle
        room = abs(low) / 2 if abs(low) > TINY else 1.0
        room = min(room, 1.0) if log else room
    else:
        room = padding * high - padding * low
    return Scale(max(low - room, -LARGEST), min(high + room, LARGEST), start, end, log)


def tick_text(value: float, form: str | None) -> str:
    """A tick or a value in `form`, one of the d3 formats that the figures use."""
    if form is not None and form.startswith(("+", ".4", ",.4")):
        return _number_text(value, form)
    if form == ",d" and abs(value) < 1e16:
        return f"{value:,.0f}"
    if form == ".0%" and abs(value) < 1e4:
        return f"{value:.0%}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    if form == "~s" and abs(value) < 1e15:
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.4g}{unit}"
    text = f"{value:.6g}"
    if len(text) <= MAX_TICK_LETTERS:
        return text
    digits, _, power = f"{value:.4e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _number_text(value: float, form: str) -> str:
    """Four significant digits."""
    if form.endswith("s") and 1e3 <= abs(value) < 1e15:
        return formatting.abbreviated(value, digits=4).replace(" ", "")
    if form.endswith("p"):
        return f"{100 * value:.4g}%"
    sign = "+" if form.startswith("+") and value > 0 else ""
    return sign + formatting.number(value)


def _linear_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    count = max(1, max_ticks)
    exact = high / count - low / count
    if exact < sys.float_info.min:  # too narrow to be divided
        return [low]
    unit = 10.0 ** math.floor(math.log10(exact))
    step = next((factor * unit for factor in (1, 2, 5, 10) if exact * (1 - EPSILON) <= factor * unit <= LARGEST), unit)
    first, last = math.ceil(low / step - EPSILON), math.floor(high / step + EPSILON)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Powers of ten, with their multiples by 2 and 5 where few are in view; linear ticks within one power."""
    if high - low < 0.7:
        first, last = (10.0 ** min(max(each, MIN_POWER), MAX_POWER) for each in (low, high))
        return [value for value in _linear_ticks(first, last, max_ticks) if value > 0]
    every = max(1, math.ceil((high - low) / max(1, max_ticks)))
    factors = (1, 2, 5) if high - low < 0.5 * max_ticks else (1,)
    powers = range(max(math.floor(low), MIN_POWER), min(math.ceil(high), MAX_POWER) + 1)
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [value for value in found if low - EPSILON <= math.log10(value) <= high + EPSILON]
