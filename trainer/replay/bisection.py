"""Search for the culprits in a window of batches. Pure except for the replays that it requests."""

from collections.abc import Callable, Sequence


def bisect(window: Sequence[int], reproduces: Callable[[Sequence[int]], bool], *, first_end: int) -> tuple[int, int]:
    """The batches [from, to) of `window`, from the first culprit to the last one.

    `reproduces`: whether a part of the window alone reproduces the incident. `first_end`: the length of a prefix that
    is known to. The shortest prefix that does ends with the first culprit, and the shortest suffix begins with the last
    one: about 2 log2(length) replays. Batches that reproduce it only in combination are all within the range.
    """
    low, high = 0, first_end  # window[:high] reproduces it, window[:low] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reproduces(window[:middle]) else (middle, high)
    first = window[high - 1]
    low, high = 0, len(window)  # window[low:] reproduces it, window[high:] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reproduces(window[middle:]) else (low, middle)
    last = window[low]
    return min(first, last), max(first, last) + 1
