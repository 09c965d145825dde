"""Which checkpoints stay: all near the head, ever fewer behind it; so deep rollbacks are possible on a small disk."""

from collections.abc import Collection, Sequence


def superfluous(steps: Sequence[int], *, keep: int, pinned: Collection[int] = ()) -> list[int]:
    """Steps to delete of `steps` (ascending): all but the newest `keep`, one in each doubling of the age, the pinned.

    The newest `keep` span D steps. Behind them, of those aged D to 2 D the oldest stays, of those aged 2 D to 4 D the
    oldest, and so on: the very first stays for ever, and a run of n steps keeps about keep + log2(n / D).
    """
    newest, older = steps[-keep:], steps[:-keep]
    span = max(1, newest[-1] - newest[0]) if newest else 1
    oldest: dict[int, int] = {}
    for step in older:
        oldest.setdefault(_doublings(steps[-1] - step, span), step)
    staying = {*oldest.values(), *pinned}
    return [step for step in older if step not in staying]


def _doublings(age: int, span: int) -> int:
    """0 for ages up to 2 spans, 1 up to 4, 2 up to 8, ..."""
    return max(0, (-(-age // span) - 1).bit_length() - 1)
