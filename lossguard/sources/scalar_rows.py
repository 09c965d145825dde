"""Scalars of a store, in the order in which they were logged, as rows."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lossguard.protocol import MAX_STEP
from lossguard.sources.rows import Row, RowBuilder


class StoredScalar(NamedTuple):
    """One value of a metric, as a store keeps it."""

    time: float
    """Unix seconds."""
    step: int
    name: str
    value: float


def joined(scalars: Iterable[StoredScalar]) -> Iterator[Row]:
    """Scalars of one step are one row. Those without a valid step are left out."""
    builder = RowBuilder()
    for time, step, name, value in scalars:
        if 0 <= step < MAX_STEP:
            yield from builder.add(name, value, step, time)
    yield from builder.flush()
