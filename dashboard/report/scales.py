"""Where values lie along an axis of a picture, and the ticks beside it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.figures.axis import Floats

PADDING = 0.05
"""Share of the span that is left free at both ends of what is drawn."""
EDGE = 1e-9
MOST_LETTERS = 8
"""Of a tick: as many as the margin holds."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high` (powers of ten on a log axis), drawn from the place `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: tuple[str, ...] = ()
    """Of the positions 0, 1, .. on an axis of words."""

    def at(self, values: Any) -> Floats:
        """Places of these values; NaN for what has none."""
        if self.names:
            numbers = np.array([self.names.index(value) for value in values], dtype=np.float64)
        else:
            numbers = np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                numbers = np.where(numbers > 0, np.log10(numbers), np.nan)
        return self.start + (numbers - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most about so many values worth a line."""
        if self.names:
            return list(range(len(self.names)))
        return _powers(self.low, self.high, most) if self.log else _round(self.low, self.high, most)


def scale_for(values: Sequence[Floats], bounds: Any, start: float, end: float, *, log: bool, padding: float) -> Scale:
    """An axis that holds all that is finite in `values`, or reaches exactly from `bounds[0]` to `bounds[1]`."""
    if bounds is not None:
        return Scale(float(bounds[0]), float(bounds[1]), start, end, log)
    finite = np.concatenate([np.asarray(column, dtype=np.float64) for column in values]) if values else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    if log:
        finite = np.log10(finite[finite > 0])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if high - low <= EDGE * max(abs(low), abs(high)):  # one value: it stands in the middle
        room = abs(low) / 2 or 1.0
        return Scale(low - room, high + room, start, end, log)
    room = padding * (high - low)
    return Scale(low - room, high + room, start, end, log)


def tick_text(value: float, form: str | None) -> str:
    """A tick as `form`, one of the formats of d3 that the figures use, writes it."""
    if form == ",d":
        return f"{value:,.0f}"
    if form == ".0%":
        return f"{value:.0%}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    if form == "~s":
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.4g}{unit}"
    text = f"{value:.6g}"
    if len(text) <= MOST_LETTERS:
        return text
    digits, _, power = f"{value:.4e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _round(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(1, most)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - EDGE))
    first, last = math.ceil(low / step - EDGE), math.floor(high / step + EDGE)
    return [number * step for number in range(first, last + 1)]


def _powers(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 times of them where few of them are in view; round numbers within one power."""
    if high - low < 0.7:
        return [value for value in _round(10**low, 10**high, most) if value > 0]
    every = max(1, math.ceil((high - low) / max(1, most)))
    factors = (1, 2, 5) if high - low < 0.5 * most else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [value for value in found if low - EDGE <= math.log10(value) <= high + EDGE]
