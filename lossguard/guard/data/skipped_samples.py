"""Samples of skipped batches stay skipped: later epochs leave them out of the batches in which they come again.

A loader that reads samples by index can name the samples of a batch without loading them. The samples of a range of
micro-batches are left out from the end of that range on, so a replay of what lies before it is exact.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lossguard.run.ranks import Ranks
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Skip

if TYPE_CHECKING:
    from lossguard.guard.data.batches import MicroBatches

Index = int | str
Range = tuple[int, int]
"""The first micro-batch of a range within one epoch, and the first one after it; both are absolute."""
MAX_SAMPLES = 1 << 18
"""Maximum number of samples that a run leaves out, because every checkpoint holds them."""
MIN_FILLING = 1024
"""Number of samples from the beginning of an epoch that batches are filled with, if fewer are left out."""


def index_of(value: Any) -> Index | None:
    """Return the index of a sample as a plain value; None if it is neither a number nor a text."""
    if isinstance(value, int | str):
        return value
    if getattr(value, "ndim", None) == 0:  # of NumPy or torch
        return index_of(value.item())
    return None


class SkippedSamples:
    """The indices of skipped samples, by the range of micro-batches that held them on any rank."""

    def __init__(self) -> None:
        self.by_range: dict[Range, tuple[Index, ...]] = {}
        self.skips: list[Range] = []
        """Every skipped micro-batch, also one whose samples are not known yet."""
        self.is_in_use = False
        """True if the samples are left out."""
        self._log_once = LogOnce()

    def concern(self, end: int) -> bool:
        """Return True if a micro-batch before `end` may lack samples."""
        return self.is_in_use and any(last < end and samples for (_, last), samples in self.by_range.items())

    def without(
        self, batches: Iterable[Any], *, first: int, shortest: int | None, num_each: int = 1, is_even: bool = False
    ) -> Iterator[Any]:
        """Yield the indices of each batch of an epoch, without those of the samples that were skipped before it.

        A batch is a list of indices, or a single one. A batch that would have fewer than `shortest` samples (None or
        `is_even`: fewer than it had) is filled with samples from the beginning of the epoch, so the number of batches
        stays. `first`: the micro-batch with which the epoch begins. `num_each`: batches of a micro-batch.
        """
        coming = deque(sorted(self.by_range.items(), key=lambda each: each[0][1]))
        left_out: set[Index | None] = set()
        filling = _Filling(sum(len(samples) for (_, end), samples in coming if end <= first))
        waiting: list[tuple[Any, list[Any]]] = []  # for samples to be filled with
        for number, batch in enumerate(batches):
            position = first + number // num_each
            while coming and coming[0][0][1] <= position:
                left_out.update(coming.popleft()[1])
                filling.drop(left_out)
            samples = batch if isinstance(batch, list) else [batch]
            kept = [each for each in samples if index_of(each) not in left_out]
            if not any(begin <= position < end for begin, end in self.skips):
                filling.keep(kept)
            waiting.append((batch, kept))
            if filling.samples or not left_out:
                yield from (filling.fill(*each, None if is_even else shortest) for each in waiting)
                waiting = []
        if waiting:
            self._log_once.warn_once("all", "all samples of an epoch have been skipped, so they are used again")
            yield from (batch for batch, _ in waiting)

    def state_dict(self) -> list[list[Any]]:
        """Return the ranges with their samples, in plain values."""
        return [[*each, list(samples)] for each, samples in self.by_range.items()]

    def load_state_dict(self, state: Iterable[Sequence[Any]]) -> None:
        """Add ranges with their samples; those that are known stay."""
        for first, end, samples in state:
            self.by_range.setdefault((first, end), tuple(samples))


class _Filling:
    """Samples from the beginning of an epoch, which take the places of those that are left out, one after the other."""

    def __init__(self, num_left_out: int) -> None:
        """`num_left_out`: in the whole epoch. What it skips itself does not count, because it may not be known yet."""
        self.samples: list[Any] = []
        self._most = max(num_left_out, MIN_FILLING)
        self._num_taken = 0

    def keep(self, samples: Sequence[Any]) -> None:
        """Add `samples`, if there are not enough."""
        self.samples += samples[: max(0, self._most - len(self.samples))]

    def drop(self, left_out: Collection[Any]) -> None:
        """Remove those that are left out themselves."""
        self.samples = [each for each in self.samples if index_of(each) not in left_out]

    def fill(self, batch: Any, kept: list[Any], shortest: int | None) -> Any:
        """Return `batch` with the samples that are `kept`, and with others if they are too few."""
        if not isinstance(batch, list):
            return kept[0] if kept else self._take()
        if len(kept) == len(batch):
            return batch
        size = len(batch) if shortest is None else min(shortest, len(batch))
        return kept + [self._take() for _ in range(size - len(kept))]

    def _take(self) -> Any:
        self._num_taken += 1
        return self.samples[(self._num_taken - 1) % len(self.samples)]


# From skipped batches to samples.


class SampleSkips:
    """Finds the samples of the batches that a run skips, and has later epochs leave them out."""

    def __init__(
        self,
        micro_batches: "MicroBatches",
        first_of: Callable[[int], int],
        *,
        used: int | None = None,
        exempt: str | None = None,
    ) -> None:
        """`first_of(i)`: the first micro-batch of batch i. `used`: the number of micro-batches used of each epoch.

        `exempt`: the reason of skips whose samples come again.
        """
        self._micro_batches, self._first_of, self._used, self._exempt = micro_batches, first_of, used, exempt
        self._is_complete = False  # no skip reaches into an epoch that has not begun
        self._num_epochs = -1  # those that had begun at the last call of `find`
        self._log_once = LogOnce()

    def begin(self, known: Iterable[Sequence[Any]]) -> None:
        """Leave samples out from now on, those too that an earlier process has found (`known`)."""
        self._micro_batches.skipped.load_state_dict(known)
        self._micro_batches.skipped.is_in_use = True
        self._is_complete, self._num_epochs = False, -1

    @property
    def is_due(self) -> bool:
        """True if an epoch has begun into which a skip may reach: `find` is to be called."""
        return not self._is_complete and len(self._micro_batches.epochs) != self._num_epochs

    def find(self, skips: Iterable[Skip], ranks: Ranks) -> list[list[Any]]:
        """Find the samples of `skips` in all epochs that have begun; all ranks call it together.

        Returns each new range with its samples, in plain values.
        """
        found = []
        data = self._micro_batches
        self._is_complete, self._num_epochs = True, len(data.epochs)
        skipped = [skip for skip in skips if skip.reason != self._exempt]
        data.skipped.skips = [(self._first_of(skip.skip_from), self._first_of(skip.skip_to)) for skip in skipped]
        for each in self._ranges():
            if each not in data.skipped.by_range:
                samples = self._gather(each, ranks)
                data.skipped.by_range[each] = samples
                if samples:
                    found.append([*each, list(samples)])
        return found

    def found_of(self, skip: Skip) -> list[list[Any]]:
        """Return the ranges of one skip with their samples, as far as they are found, in plain values."""
        first, end = self._first_of(skip.skip_from), self._first_of(skip.skip_to)
        known = self._micro_batches.skipped.by_range.items()
        return [[*each, list(samples)] for each, samples in known if samples and first <= each[0] < each[1] <= end]

    def _ranges(self) -> Iterator[Range]:
        """Yield the ranges of skipped micro-batches in epochs whose order is known."""
        known, length = self._micro_batches.epochs, self._micro_batches.length
        assert length is not None
        for first, end in self._micro_batches.skipped.skips:
            self._is_complete &= (end - 1) // length <= max(known, default=-1)
            for epoch in sorted(known):
                part = max(first, epoch * length), min(end, epoch * length + (self._used or length))
                if part[0] < part[1]:
                    yield part

    def _gather(self, each: Range, ranks: Ranks) -> tuple[Index, ...]:
        """Return the samples of a range on all ranks, without those that are left out there already."""
        by_rank, by_range = ranks.gather(self._indices(each)), self._micro_batches.skipped.by_range
        left_out = {index for (_, end), indices in by_range.items() if end <= each[0] for index in indices}
        samples = dict.fromkeys(index for indices in by_rank for index in indices or () if index not in left_out)
        num = len(samples) + sum(map(len, by_range.values()))
        if None not in by_rank and num <= MAX_SAMPLES:
            return tuple(samples)
        if ranks.rank == 0:
            why = f"they are {num}, and at most {MAX_SAMPLES} are left out"
            why = "they have no index that is a number or a text" if None in by_rank else why
            self._log_once.warn_once(why, f"samples of skipped batches come again in later epochs: {why}")
        return ()

    def _indices(self, each: Range) -> list[Index] | None:
        try:
            return self._micro_batches.indices(*each)
        except Exception as problem:  # of a sampler; the other ranks wait
            self._log_once.warn_once("indices", f"a sampler cannot name the samples of skipped batches: {problem!r}")
            return None
