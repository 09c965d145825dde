"""The levels of roll-ups: how wide their buckets are, and which of them cover a range of steps.

A bucket of level 1 covers NARROWEST steps, one of every further level FACTOR buckets of the level below. There are no
narrower ones: one metric of so few steps is read from the blocks as fast, and they would weigh more than the steps.
"""

from collections.abc import Iterator

NARROWEST = 256
FACTOR = 4
FINEST = 1
"""The level of the narrowest buckets."""


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
