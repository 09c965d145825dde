"""The smallest range of a window of batches that holds the culprits. Pure but for the replays that it asks for."""

from collections.abc import Callable, Sequence


def bisect(window: Sequence[int], troubled: Callable[[Sequence[int]], bool], *, first_end: int) -> tuple[int, int]:
    """The batches [from, to) of `window` between the first and the last one that bring the trouble about.

    `troubled`: whether a part of the window, alone, does it. `first_end`: the first so many batches are known to. The
    first culprit ends the shortest prefix that does it, the last one begins the shortest suffix: about 2 log2(length)
    replays. Batches that do it only together are thus all within the range.
    """
    low, high = 0, first_end  # window[:low] does not, window[:high] does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if troubled(window[:middle]) else (middle, high)
    first = window[high - 1]
    low, high = 0, len(window)  # window[low:] does, window[high:] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if troubled(window[middle:]) else (low, middle)
    last = window[low]
    return min(first, last), max(first, last) + 1
