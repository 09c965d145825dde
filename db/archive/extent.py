"""Which steps of a segment are archived. Pure.

All but those that a chart of the whole run reads in full resolution: the narrowest buckets of the roll-ups in which a
segment begins, ends, or another one forks off. So lists, overviews and the newest step need no file.
"""

from collections.abc import Iterable, Sequence

from db.steps import levels

BUCKET = levels.width(levels.FINEST)
"""Steps in a bucket."""


def archivable(first: int, last: int, forks: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Ranges [low, high) of the segment with the steps `first` to `last`; `forks`: first steps of its children."""
    kept = {last // BUCKET, *(edge // BUCKET for edge in (first, *forks) if edge % BUCKET and first <= edge <= last)}
    found, low = [], first
    for bucket in sorted(kept):
        if low < bucket * BUCKET:
            found.append((low, bucket * BUCKET))
        low = max(low, (bucket + 1) * BUCKET)
    return found
