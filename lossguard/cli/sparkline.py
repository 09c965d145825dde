"""A metric over steps in one line of characters. Pure.

A column shows the mean of its steps. What lies far outside of the rest does not flatten it: such a column is a triangle
at the edge. A column with a value that is not finite is a cross.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any, NamedTuple

from lossguard.cli.terminal import BLOCKS, Style, Text

FAR = 3.0
"""The largest value of a column is drawn at the edge if it lies further above those of the other columns than so many
times the spread of their middle 90%; the smallest likewise."""

LARGEST = 1e300
"""Larger values are drawn as this one: their differences are no numbers."""


class Cell(NamedTuple):
    """The steps of one column: None where no value is finite."""

    min: float | None
    max: float | None
    mean: float | None
    num_non_finite: int


def cells(series: Mapping[str, Sequence[Any]], width: int) -> list[Cell]:
    """The buckets of a series, as the API answers, in at most `width` columns."""
    buckets = list(zip(*(series[name] for name in ("min", "max", "mean", "count", "non_finite")), strict=True))
    size = max(1, -(-len(buckets) // width))
    return [_cell(buckets[first : first + size]) for first in range(0, len(buckets), size)]


def _cell(buckets: Sequence[tuple[Any, ...]]) -> Cell:
    """`buckets`: min, max, mean, count and non_finite of each; the first three are None where no value is finite."""
    finite = [(*map(_clamped, figures), count) for *figures, count, _ in buckets if figures[0] is not None]
    total = sum(count for *_, count in finite)
    return Cell(
        min=min((least for least, *_ in finite), default=None),
        max=max((most for _, most, *_ in finite), default=None),
        mean=sum(mean * (count / total) for _, _, mean, count in finite) if finite else None,
        num_non_finite=sum(non_finite for *_, non_finite in buckets),
    )


def _clamped(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value))


def sparkline(columns: Sequence[Cell]) -> list[Text]:
    """One character for each column."""
    low, high = bounds(each.mean for each in columns)
    # An extreme stands out among the extremes of the other columns: even of quiet steps, it is no mean.
    least_max, most_max = bounds(each.max for each in columns)
    least_min, most_min = bounds(each.min for each in columns)
    highest = most_max + FAR * max(high - low, most_max - least_max)
    lowest = least_min - FAR * max(high - low, most_min - least_min)
    drawn = []
    for each in columns:
        if each.num_non_finite:
            drawn.append(Text("✕", Style.RED))
        elif each.mean is None or each.max is None or each.min is None:
            drawn.append(Text(" "))
        elif each.max > highest:
            drawn.append(Text("▲", Style.YELLOW))
        elif each.min < lowest:
            drawn.append(Text("▼", Style.YELLOW))
        else:
            share = (each.mean - low) / (high - low) if high > low else 0.0
            drawn.append(Text(BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]))
    return drawn


def bounds(found: Iterable[float | None]) -> tuple[float, float]:
    """Return the values of the lowest and the highest block: the range of all values but extreme ones."""
    values = [each for each in found if each is not None]
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    low, *_, high = quantiles(values, n=20, method="inclusive")
    spread = high - low
    within = [each for each in values if low - FAR * spread <= each <= high + FAR * spread]
    return min(within, default=low), max(within, default=high)
