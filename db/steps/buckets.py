"""Values over steps, aggregated into buckets: the arithmetic behind roll-ups and charts. Pure.

B is the number of buckets. A single step is a bucket of width 1. A bucket of level 1 covers NARROWEST steps, one of
every further level FACTOR buckets of the level below. There are no narrower roll-ups: one metric of so few steps is
read from the blocks as fast, and they would weigh more than the steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from db.steps.step_block import Bools, Floats, Ints, MetricColumn

NARROWEST = 256
FACTOR = 4
FINEST = 1
"""The level of the narrowest buckets."""
MEAN_SCALE = 2.0**-64
"""Values are scaled by it before they are summed, so that the sum cannot overflow. A power of two: this is exact."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Columns of equal length B, sorted by (key, start).

    min, max, mean, first and last are those of the finite values, NaN where `count` is 0. There is no sum, because it
    may overflow although every value is finite.
    """

    key: Ints
    """The number of the bucket's metric, or of its metric and its range on a line."""
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

    def to_lists(self) -> dict[str, list[Any]]:
        """The columns of STORED by name; None for a number of a bucket without a finite value."""
        columns = {name: getattr(self, name).tolist() for name in STORED}
        if not self.count.all():
            for name in VALUES:
                columns[name] = [None if value != value else value for value in columns[name]]
        return columns

    def where(self, chosen: Bools | Ints) -> "Buckets":
        """The buckets that a mask chooses, or those at these positions, in their order."""
        return _by_column(lambda columns: columns[0][chosen], self)


NAMES = tuple(field.name for field in fields(Buckets))
STORED = [name for name in NAMES if name != "key"]
"""Columns of a roll-up."""
VALUES = ("min", "max", "mean", "first", "last")


def _by_column(change: Callable[[Sequence[Any]], Any], *buckets: Buckets) -> Buckets:
    """Apply `change` to the columns of each name; columns that share an array (see `points`) still share one."""
    changed: dict[tuple[int, ...], Any] = {}
    columns = []
    for name in NAMES:
        same_name = [getattr(one, name) for one in buckets]
        key = tuple(map(id, same_name))
        if key not in changed:
            changed[key] = change(same_name)
        columns.append(changed[key])
    return Buckets(*columns)


def points(key: Ints, steps: Ints, values: Floats) -> Buckets:
    """Return one bucket per reported value, finite or not. The arguments are sorted by (key, step)."""
    finite = np.isfinite(values)
    only_finite = np.where(finite, values, np.nan)
    count = finite.astype(np.int64)
    return Buckets(key, steps, steps, steps, count, 1 - count, *[only_finite] * 5)


def points_of(steps: Ints, metrics: Mapping[str, MetricColumn], numbers: Mapping[str, int]) -> Buckets:
    """Every reported value of these columns, metric by metric; `numbers` are their keys by name."""
    if not metrics:
        return nothing()
    chosen = sorted(metrics.items(), key=lambda pair: numbers[pair[0]])
    reported = np.concatenate([column.reported for _, column in chosen])
    key = np.repeat(np.array([numbers[name] for name, _ in chosen], dtype=np.int64), len(steps))
    values = np.concatenate([column.values for _, column in chosen])
    return points(key[reported], np.tile(steps, len(chosen))[reported], values[reported])


def from_rows(rows: Sequence[Any]) -> Buckets:
    """Buckets from stored rows: key, then the columns of STORED."""
    if not rows:
        return nothing()
    columns: list[Any] = [
        np.array(column, np.float64 if name in VALUES else np.int64)
        for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)
    ]
    return Buckets(*columns)


def in_order(buckets: Buckets) -> Buckets:
    """Sort the buckets by (key, start): rows come from a database in any order."""
    key, start = np.diff(buckets.key), np.diff(buckets.start)
    if ((key > 0) | ((key == 0) & (start >= 0))).all():
        return buckets
    return buckets.where(np.lexsort((buckets.start, buckets.key)))


def nothing() -> Buckets:
    """Return no buckets."""
    no_steps, no_values = np.empty(0, dtype=np.int64), np.empty(0)
    return points(no_steps, no_steps, no_values)


def joined(all_buckets: Sequence[Buckets]) -> Buckets:
    """Join buckets, sorted by (key, start)."""
    parts = [part for part in all_buckets if len(part)]
    if len(parts) < 2:
        return in_order(parts[0]) if parts else nothing()
    return in_order(_by_column(np.concatenate, *parts))


def coarsen(buckets: Buckets, width: int) -> Buckets:
    """Merge the buckets into buckets of `width` steps, a multiple of their widths."""
    if len(buckets) == 0 or width == 1:
        return buckets
    start = buckets.start // width * width
    differs = (np.diff(start) != 0) | (np.diff(buckets.key) != 0)
    begin = np.flatnonzero(np.concatenate([[True], differs]))
    end = np.append(begin[1:], len(buckets)) - 1
    count = np.add.reduceat(buckets.count, begin)
    has = buckets.count > 0
    position = np.arange(len(buckets))
    first = np.minimum.reduceat(np.where(has, position, len(buckets) - 1), begin)
    last = np.maximum.reduceat(np.where(has, position, 0), begin)
    has_any = count > 0
    scaled = np.add.reduceat(np.where(has, buckets.mean, 0.0) * MEAN_SCALE * buckets.count, begin)
    low, high = np.fmin.reduceat(buckets.min, begin), np.fmax.reduceat(buckets.max, begin)
    mean = scaled / np.maximum(count, 1) / MEAN_SCALE
    return Buckets(
        key=buckets.key[begin],
        start=start[begin],
        first_step=buckets.first_step[begin],
        last_step=buckets.last_step[end],
        count=count,
        non_finite=np.add.reduceat(buckets.non_finite, begin),
        min=low,
        max=high,
        mean=np.where(has_any, np.clip(mean, low, high), np.nan),  # rounding must not leave [min, max]
        first=np.where(has_any, buckets.first[first], np.nan),
        last=np.where(has_any, buckets.last[last], np.nan),
    )


def width(level: int) -> int:
    """Steps in a bucket; level 0 is the steps themselves."""
    return NARROWEST * FACTOR ** (level - 1) if level else 1


def level_for(bucket: int) -> int:
    """The coarsest level whose buckets fill one of `bucket` steps, a power of two, exactly; 0 where none does."""
    level = 0
    while width(level + 1) <= bucket:
        level += 1
    return level


def split_by_level(level: int, low: int, high: int, sealed: int) -> Iterator[tuple[int, int, int]]:
    """Split the steps [low, high) into (level, from, to), as coarse as possible; buckets end at `sealed`."""
    if low >= high:
        return
    size, finer = width(level), max(level - 1, 0)
    begin, end = -(-low // size) * size, min(high, sealed) // size * size
    if level == 0:
        yield 0, low, high
    elif begin >= end:
        yield from split_by_level(finer, low, high, sealed)
    else:
        yield from split_by_level(finer, low, begin, sealed)
        yield level, begin, end
        yield from split_by_level(finer, end, high, sealed)
