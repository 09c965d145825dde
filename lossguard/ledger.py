"""The skip ledger: batch ranges that a run never uses again, each with its reason."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skip:
    """The batches [skip_from, skip_to)."""

    skip_from: int
    """First skipped batch index."""
    skip_to: int
    """First batch index after the skipped ones."""
    reason: str = ""


class Ledger:
    """Skipped ranges in ascending order."""

    def __init__(self, skips: Iterable[Skip] = ()) -> None:
        self.skips: list[Skip] = []
        for skip in skips:
            self.add(skip)

    def add(self, skip: Skip) -> None:
        """Add `skip`, unless it is known or empty."""
        if skip not in self.skips and skip.skip_from < skip.skip_to:
            self.skips.append(skip)
            self.skips.sort(key=lambda known: (known.skip_from, known.skip_to))

    def next_free(self, index: int) -> int:
        """The first batch index at or after `index` that no range covers."""
        for skip in self.skips:  # sorted by their begin, so one pass is enough
            if skip.skip_from <= index < skip.skip_to:
                index = skip.skip_to
        return index

    def nth_free(self, number: int) -> int:
        """The batch index of the `number`-th batch, from 0, that no range covers: the batch of that step."""
        index, covered = number, 0
        for skip in self.skips:
            begin = max(skip.skip_from, covered)
            if begin > index:
                break
            index += max(0, skip.skip_to - begin)
            covered = max(covered, skip.skip_to)
        return index
