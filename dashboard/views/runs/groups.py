"""Runs in groups, such as the seeds of a setting: how many there are, and mean and spread of each metric. Pure."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboard.data.run_list import ListedRun
from dashboard.views.runs.columns import Column, groups_of, number


@dataclass(frozen=True, slots=True)
class Spread:
    """Spread of the finite values of a group."""

    mean: float | None
    deviation: float | None
    """Standard deviation of the sample; None below two values."""
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    names: tuple[str, ...]
    """Values that its runs share, in the order of what they are grouped by."""
    num_runs: int
    spreads: Mapping[str, Spread]
    """Spreads by the label of the column."""


def grouped(rows: Sequence[ListedRun], *, by: Sequence[str], columns: Sequence[Column]) -> list[Group]:
    """The groups in the order of their first run; `by`: settings, or project, tag, host."""
    members: dict[tuple[str, ...], list[ListedRun]] = {}
    for row in rows:
        for names in itertools.product(*(groups_of(row, name) for name in by)):
            members.setdefault(names, []).append(row)
    return [
        Group(names, len(group), {each.label: spread([each.of(row) for row in group]) for each in columns})
        for names, group in members.items()
    ]


def spread(values: Sequence[object]) -> Spread:
    """Return the spread of the finite numbers among the values."""
    finite = [found for value in values if (found := number(value)) is not None and math.isfinite(found)]
    if not finite:
        return Spread(None, None, 0)
    scale = max(map(abs, finite)) or 1.0  # so that no sum and no square overflows
    scaled = [value / scale for value in finite]
    deviation = statistics.stdev(scaled) * scale if len(finite) > 1 else None
    return Spread(statistics.fmean(scaled) * scale, deviation, len(finite))
