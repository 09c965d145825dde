"""A metric over steps in one line of characters. Pure.

A column shows the mean of its steps. What lies far outside of the rest does not flatten it: such a column is a triangle
at the edge. A column with a value that is not finite is a cross.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from lossguard.cli.terminal import Style, Text

BLOCKS, ABOVE, BELOW, CROSS = "▁▂▃▄▅▆▇█", "▲", "▼", "✕"
ASCII_BLOCKS, ASCII_ABOVE, ASCII_BELOW, ASCII_CROSS = "_.-=+*#@", "^", "v", "x"
FAR = 3.0
"""The largest value of a column is drawn at the edge if it lies further above those of the other columns than so many
times the spread of their middle 90%; the smallest likewise."""

LARGEST = 1e300
"""Larger values are drawn as this one: their differences are no numbers."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The steps of one column: None where no value is finite."""

    min: float | None
    max: float | None
    mean: float | None
    num_non_finite: int


def cells(series: Mapping[str, Sequence[Any]], width: int) -> list[Cell]:
    """The buckets of a series, as the API answers, in at most `width` columns."""
    size = max(1, -(-len(series["count"]) // width))
    return [_cell(series, first, size) for first in range(0, len(series["count"]), size)]


def _cell(series: Mapping[str, Sequence[Any]], first: int, size: int) -> Cell:
    part = {name: column[first : first + size] for name, column in series.items()}
    part |= {name: [_clamped(each) for each in part[name]] for name in ("min", "max", "mean")}
    finite = [(mean, count) for mean, count in zip(part["mean"], part["count"], strict=True) if mean is not None]
    total = sum(count for _, count in finite)
    return Cell(
        min=min((each for each in part["min"] if each is not None), default=None),
        max=max((each for each in part["max"] if each is not None), default=None),
        mean=sum(mean * (count / total) for mean, count in finite) if total else None,
        num_non_finite=sum(part["non_finite"]),
    )


def _clamped(value: float | None) -> float | None:
    return None if value is None else max(-LARGEST, min(LARGEST, value))


def sparkline(columns: Sequence[Cell], *, has_unicode: bool = True) -> list[Text]:
    """One character for each column."""
    blocks = BLOCKS if has_unicode else ASCII_BLOCKS
    above, below = (ABOVE, BELOW) if has_unicode else (ASCII_ABOVE, ASCII_BELOW)
    cross = CROSS if has_unicode else ASCII_CROSS
    low, high = bounds([each.mean for each in columns if each.mean is not None])
    # An extreme stands out among the extremes of the other columns: even of quiet steps, it is no mean.
    least_max, most_max = bounds([each.max for each in columns if each.max is not None])
    least_min, most_min = bounds([each.min for each in columns if each.min is not None])
    highest = most_max + FAR * max(high - low, most_max - least_max)
    lowest = least_min - FAR * max(high - low, most_min - least_min)
    drawn = []
    for each in columns:
        if each.num_non_finite:
            drawn.append(Text(cross, Style.RED))
        elif each.mean is None or each.max is None or each.min is None:
            drawn.append(Text(" "))
        elif each.max > highest:
            drawn.append(Text(above, Style.YELLOW))
        elif each.min < lowest:
            drawn.append(Text(below, Style.YELLOW))
        else:
            drawn.append(Text(blocks[_level(each.mean, low, high, len(blocks))]))
    return drawn


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the values of the lowest and the highest block: the range of all values but extreme ones."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    low, *_, high = quantiles(values, n=20, method="inclusive")
    spread = high - low
    within = [each for each in values if low - FAR * spread <= each <= high + FAR * spread]
    return min(within, default=low), max(within, default=high)


def _level(value: float, low: float, high: float, num_levels: int) -> int:
    share = (value - low) / (high - low) if high > low else 0.0
    return min(num_levels - 1, max(0, int(share * num_levels)))
