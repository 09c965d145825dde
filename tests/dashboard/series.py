"""Curves for tests, and the traces of a figure by name."""

from collections.abc import Sequence
from typing import Any

from db.queries import Series


def plain(values: Sequence[float | None]) -> Series:
    """One step a bucket."""
    steps = list(range(len(values)))
    ones = [int(value is not None) for value in values]
    same = list(values)
    return Series(steps, steps, same, same, same, same, ones, [1 - one for one in ones])


def bucketed() -> Series:
    """Two buckets of 100 steps; the second holds a one-step spike and a NaN."""
    return Series([0, 100], [99, 199], [1.0, 1.0], [1.2, 9.0], [1.1, 1.18], [1.1, 1.2], [100, 99], [0, 1])


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]
