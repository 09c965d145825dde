"""The levels of roll-ups: how wide their buckets are, and which of them cover a range of steps.

A bucket of level 1 covers NARROWEST steps, one of every further level FACTOR buckets of the level below. A segment
whose steps become blocks has no levels below FINEST: one metric of so few steps is read from the blocks as fast, and
the finer levels would weigh more than the steps.
"""

from collections.abc import Iterator

NARROWEST = 16
FACTOR = 4
FINEST = 3
"""The first level of a segment with blocks: buckets of 256 steps."""


def width(level: int) -> int:
    """Steps in a bucket; level 0 is the steps themselves."""
    return NARROWEST * FACTOR ** (level - 1) if level else 1


def finest_level(has_blocks: bool) -> int:
    """The first level that a segment has roll-ups of."""
    return FINEST if has_blocks else 1


def level_for(bucket: int, finest: int) -> int:
    """The coarsest level whose buckets fill one of `bucket` steps, a power of two, exactly: 0 or from `finest` on."""
    level = 0
    while width(level + 1) <= bucket:
        level += 1
    return level if level >= finest else 0


def split_by_level(level: int, low: int, high: int, sealed: int, finest: int) -> Iterator[tuple[int, int, int]]:
    """Split the steps [low, high) into (level, from, to), as coarse as possible; buckets end at `sealed`."""
    if low >= high:
        return
    size, finer = width(level), level - 1 if level > finest else 0
    begin, end = -(-low // size) * size, min(high, sealed) // size * size
    if level == 0:
        yield 0, low, high
    elif begin >= end:
        yield from split_by_level(finer, low, high, sealed, finest)
    else:
        yield from split_by_level(finer, low, begin, sealed, finest)
        yield level, begin, end
        yield from split_by_level(finer, end, high, sealed, finest)
