"""Values over steps, drawn together into buckets: the arithmetic of ingestion, back-fill and charts alike. Pure.

B is the number of buckets. A single step is a bucket of width 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALL = 2.0**-64
"""A power of two, so that scaling by it is exact: the sum of finite values then cannot overflow."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Columns of equal length B, sorted by (key, start).

    min, max, mean, first and last are those of the finite values, NaN where `count` is 0. The mean stands in place of
    the sum, which may overflow although every value is finite.
    """

    key: Ints
    """What the bucket belongs to: a metric, or a stretch of a line."""
    start: Ints
    """The multiple of the bucket's width at which it begins."""
    first_step: Ints
    last_step: Ints
    """First and last step that has a value, finite or not."""
    count: Ints
    non_finite: Ints
    min: Floats
    max: Floats
    mean: Floats
    first: Floats
    last: Floats

    def __len__(self) -> int:
        return len(self.key)

    def where(self, chosen: NDArray[np.bool_] | Ints) -> "Buckets":
        """The buckets of a mask, or at these positions in their order."""
        return _by_column(lambda columns: columns[0][chosen], self)


NAMES = tuple(field.name for field in fields(Buckets))


def _by_column(change: Callable[[Sequence[Any]], Any], *given: Buckets) -> Buckets:
    """`change` of the columns of one name, name by name; columns that are one array (see `points`) stay one."""
    done: dict[tuple[int, ...], Any] = {}
    columns = []
    for name in NAMES:
        parts = [getattr(one, name) for one in given]
        key = tuple(map(id, parts))
        if key not in done:
            done[key] = change(parts)
        columns.append(done[key])
    return Buckets(*columns)


def points(key: Ints, steps: Ints, values: Floats) -> Buckets:
    """One bucket per reported value, finite or not. Sorted as given: by (key, step)."""
    finite = np.isfinite(values)
    kept = np.where(finite, values, np.nan)
    count = finite.astype(np.int64)
    return Buckets(key, steps, steps, steps, count, 1 - count, kept, kept, kept, kept, kept)


def in_order(buckets: Buckets) -> Buckets:
    """The same, sorted by (key, start): a database gives rows in any order that suits it."""
    key, start = np.diff(buckets.key), np.diff(buckets.start)
    if ((key > 0) | ((key == 0) & (start >= 0))).all():
        return buckets
    return buckets.where(np.lexsort((buckets.start, buckets.key)))


def nothing() -> Buckets:
    """No buckets."""
    no_steps, no_values = np.empty(0, dtype=np.int64), np.empty(0)
    return points(no_steps, no_steps, no_values)


def joined(given: Sequence[Buckets]) -> Buckets:
    """All of these in one, sorted by (key, start)."""
    parts = [part for part in given if len(part)]
    if len(parts) < 2:
        return in_order(parts[0]) if parts else nothing()
    return in_order(_by_column(np.concatenate, *parts))


def coarsen(buckets: Buckets, width: int) -> Buckets:
    """The same values in buckets of `width`, a multiple of the widths given."""
    if len(buckets) == 0 or width == 1:
        return buckets
    start = buckets.start // width * width
    differs = (np.diff(start) != 0) | (np.diff(buckets.key) != 0)
    begin = np.flatnonzero(np.concatenate([[True], differs]))
    end = np.append(begin[1:], len(buckets)) - 1
    count = np.add.reduceat(buckets.count, begin)
    has = buckets.count > 0
    place = np.arange(len(buckets))
    first = np.minimum.reduceat(np.where(has, place, len(buckets) - 1), begin)
    last = np.maximum.reduceat(np.where(has, place, 0), begin)
    some = count > 0
    scaled = np.add.reduceat(np.where(has, buckets.mean, 0.0) * SMALL * buckets.count, begin)
    low, high = np.fmin.reduceat(buckets.min, begin), np.fmax.reduceat(buckets.max, begin)
    mean = scaled / np.maximum(count, 1) / SMALL
    return Buckets(
        key=buckets.key[begin],
        start=start[begin],
        first_step=buckets.first_step[begin],
        last_step=buckets.last_step[end],
        count=count,
        non_finite=np.add.reduceat(buckets.non_finite, begin),
        min=low,
        max=high,
        mean=np.where(some, np.clip(mean, low, high), np.nan),  # rounding must not lead out of [min, max]
        first=np.where(some, buckets.first[first], np.nan),
        last=np.where(some, buckets.last[last], np.nan),
    )
