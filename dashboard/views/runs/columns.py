"""Columns of the table of runs that a viewer chooses, and runs in groups, such as the seeds of a setting. Pure.

A column is a setting by dotted path, or a metric. Its label names it in the URL: `optimizer.lr`, `last loss`.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dashboard.data.comparison.configurations import setting_text
from dashboard.data.run_list import ListedRun
from lossguard.vocabulary.run_search import settings_named, tags_of

MAX_SETTINGS = 300
"""Settings that are offered, those of most runs first; any other can be typed."""


class Statistic(StrEnum):
    """Which value of a metric a column shows."""

    LAST = "last"
    MIN = "min"
    MAX = "max"


STEPS = "Steps"
"""The label of the number of steps, which every table has."""
DEFAULT_COLUMNS = ("last loss", "min loss")
PROJECT, TAG, HOST = "project", "tag", "host"
"""Columns to group runs by, besides their settings."""


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    name: str
    """Name of the setting or metric."""
    value: Statistic | None = None
    """Value of the metric; None: the column is a setting."""

    @property
    def is_metric(self) -> bool:
        return self.value is not None

    def of(self, row: ListedRun) -> Any:
        """The value of a run; None if it has none."""
        if self.label == STEPS:
            return row.summary.steps
        if self.value is None:
            return next(iter(settings_named(row.settings, self.name)), None)
        metric = row.summary.metrics.get(self.name)
        return None if metric is None else getattr(metric, self.value)


def column(label: str) -> Column:
    first, _, name = label.partition(" ")
    return Column(label, name, Statistic(first)) if name and first in tuple(Statistic) else Column(label, label)


def available(settings: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """The labels of all columns: those of metrics, then those of settings (those of most runs first)."""
    of_metrics = [f"{value} {name}" for name in metrics for value in Statistic]
    return of_metrics + sorted(settings[:MAX_SETTINGS])


def groups_of(row: ListedRun, name: str) -> list[str]:
    """The groups that a run is in by its project, its tags, its host or a setting: with several tags several."""
    match name:
        case "project":
            return [row.run.project]
        case "host":
            return [row.run.host or "-"]
        case "tag":
            return tags_of(row.run.tags, row.run.config) or ["-"]
    found = settings_named(row.settings, name)
    return [setting_text(found[0])] if found else ["-"]


def number(value: Any) -> float | None:
    """A number as a float, also one that is not finite; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of JSON has no bounds
        return math.inf if value > 0 else -math.inf


def ordered(rows: Sequence[ListedRun], by: Column, *, descending: bool) -> list[ListedRun]:
    """Sort by a column: numbers, then texts; runs without a value, or with NaN, come last either way."""
    values = [(by.of(row), row) for row in rows]
    numbers = [(found, row) for value, row in values if (found := number(value)) is not None and not math.isnan(found)]
    texts = [(setting_text(value), row) for value, row in values if value is not None and number(value) is None]
    nan = [row for value, row in values if (found := number(value)) is not None and math.isnan(found)]
    missing = [row for value, row in values if value is None]
    known = [row for part in (numbers, texts) for _, row in sorted(part, key=lambda pair: pair[0], reverse=descending)]
    return [*known, *nan, *missing]


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
