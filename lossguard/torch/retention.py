"""Which checkpoints stay: all of the newest, and ever fewer of the older ones.

So deep rollbacks are possible, and the disk stays small.
"""

from collections.abc import Collection, Sequence


def steps_to_delete(steps: Sequence[int], *, keep: int, pinned: Collection[int] = ()) -> list[int]:
    """Steps of `steps` (ascending) to delete: neither among the newest `keep`, nor pinned, nor needed for their age.

    The newest `keep` span D steps. Of the older ones, the oldest aged D to 2 D stays, the oldest aged 2 D to 4 D, and
    so on. So the very first stays for ever, and a run of n steps keeps about keep + log2(n / D).
    """
    newest, older = steps[-keep:], steps[:-keep]
    span = max(1, newest[-1] - newest[0]) if newest else 1
    oldest_of_age: dict[int, int] = {}
    for step in older:
        oldest_of_age.setdefault(_doublings(steps[-1] - step, span), step)
    staying = {*oldest_of_age.values(), *pinned}
    return [step for step in older if step not in staying]


def _doublings(age: int, span: int) -> int:
    """0 for ages up to 2 spans, 1 up to 4, 2 up to 8, ..."""
    return max(0, (-(-age // span) - 1).bit_length() - 1)
