"""Compares the samples that a loop is given with those that it was given before, to see that a skip leaves them out."""

from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from itertools import islice, zip_longest
from math import inf, sqrt
from typing import Any, Protocol

from lossguard.guard.data.digests import RowDigests, row_digests
from lossguard.run.ranks import NO_FINDINGS, SampleFindings
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Ledger, Skip

MAX_ROWS = 1 << 20
"""Maximum number of samples that are remembered, those of the newest batches; each takes 8 bytes."""
MAX_SKIPPED_ROWS = 1 << 18
"""Maximum number of skipped samples that are looked for."""
MAX_SAVED_ROWS = 1 << 12
"""Maximum number of skipped samples that a new process looks for; each takes 9 bytes of a checkpoint."""


class Repeats(Enum):
    """When a batch that is read again has to be the same to the last bit."""

    ALWAYS = auto()  # its random numbers follow from its index
    UNTIL_SKIP = auto()  # it may draw from those of the loop, which are others after a skip
    NEVER = auto()  # its samples are the same, and what is drawn for them may differ


class Compared(Protocol):
    """Data whose batches are compared."""

    @property
    def repeats(self) -> Repeats:
        """When a batch that is read again must be the same; asked for at a rollback."""

    @property
    def advice(self) -> str:
        """A sentence about what the user can do if the batch is another one nevertheless."""

    def pass_of(self, index: int, /) -> int:
        """Return the pass over the data, or epoch, that batch `index` belongs to: in each, all samples come again."""


# The micro-batches of one optimizer step, each loaded when it is first asked for, and compared then.

END = object()


class StepOnDemand(Sequence[Any]):
    """A sequence of micro-batches whose length is known before any of them is loaded.

    `load_one(place)` is called for one after the other, and returns END if there are fewer than `num`.
    """

    def __init__(self, num: int, load_one: Callable[[int], Any]) -> None:
        self._num, self._load_one = num, load_one
        self._loaded: list[Any] = []
        self._on_load: Callable[[int, Any], object] = lambda place, micro_batch: None

    def observe(self, on_load: Callable[[int, Any], object]) -> None:
        """Have `on_load(place, micro_batch)` called for each micro-batch, before the loop gets it."""
        self._on_load = on_load
        for place, micro_batch in enumerate(self._loaded):
            on_load(place, micro_batch)

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._num))]
        place = range(self._num)[index]
        self.load(place + 1)
        return self._loaded[place]

    def load(self, num: int) -> None:
        """Load the first `num` micro-batches."""
        while len(self._loaded) < num:
            micro_batch = self._load_one(len(self._loaded))
            if micro_batch is END:
                self._num = len(self._loaded)
                return
            self._loaded.append(micro_batch)
            self._on_load(len(self._loaded) - 1, micro_batch)


class SampleComparison:
    """The digests of the newest batches, and those of the samples that the last skip has left out.

    A batch that is read again after a rollback must be the one of before, and no batch may hold a skipped sample:
    `findings` says of the first batch of either kind. Digests that a device computes are compared some steps later.
    """

    def __init__(self, log_once: LogOnce) -> None:
        self.is_possible = False
        """True if the newest batch could be digested."""
        self.findings = NO_FINDINGS
        """The findings since the last call of `forget`."""
        self.data: Compared | None = None
        """The source of the batches, if it is known."""
        self._log_once = log_once
        self._pending: deque[tuple[tuple[int, int], RowDigests]] = deque()
        self._rows: OrderedDict[tuple[int, int], array[int]] = OrderedDict()  # by batch and micro-batch
        self._num_rows = 0
        self.order: int | None = None
        """The id of the newest order that has skipped batches."""
        self._newest_skip: Skip | None = None  # of that order, until its samples are known
        self._skipped: set[int] = set()
        self._skipped_from = 0  # the first batch that must not hold them: an earlier epoch is repeated with them
        self._outdated: set[tuple[int, int]] = set()  # those in _rows that may differ when they are read again
        self._chance = 0.0  # that two samples of this data are equal
        self._num_since, self._num_returned = 0, 0  # samples since the rollback; those of them that were skipped

    def begin(self, data: Compared) -> None:
        """Begin with other data."""
        self.__init__(self._log_once)  # type: ignore[misc]
        self.data = data

    def add(self, index: int, batch: Any) -> None:
        """Compare batch `index`, which the loop is about to get. Never raises, and never waits for a device."""
        if isinstance(batch, StepOnDemand):
            batch.observe(partial(self.add_micro_batch, index))
        else:
            self.add_micro_batch(index, 0, batch)

    def add_micro_batch(self, index: int, number: int, micro_batch: Any) -> None:
        """Compare one micro-batch of batch `index`."""
        try:
            rows = row_digests(micro_batch)
        except Exception as problem:  # batches are of any kind
            rows = None
            self._log_once.warn_once("digest", f"samples are not compared after rollbacks: {problem!r}")
        self.is_possible = rows is not None
        if rows is not None:
            self._pending.append(((index, number), rows))
            self._compare_pending()

    def skip(self, order: int, skip: Skip) -> None:
        """Look for the samples of `skip` from the next call of `restored` on, in place of earlier ones."""
        self.order, self._newest_skip = order, skip

    def restored(self, ledger: Ledger, cursor: int) -> None:
        """The next batch is the first one from `cursor` on that `ledger` does not skip."""
        self._compare_pending(wait=True)
        self.findings = NO_FINDINGS
        self._num_since = self._num_returned = 0
        if self._newest_skip is not None:
            self._look_for(self._newest_skip, ledger)
            self._newest_skip = None
        skips = (skip.skip_from for skip in ledger.skips if skip.skip_to > cursor)
        until = {Repeats.ALWAYS: inf, Repeats.UNTIL_SKIP: min(skips, default=inf), Repeats.NEVER: 0}
        first = 0 if self.data is None else until[self.data.repeats]
        self._outdated = {key for key in self._rows if key in self._outdated or key[0] >= first}

    def forget(self, known: SampleFindings) -> None:
        """Forget findings that all ranks know."""
        if self.findings is NO_FINDINGS:
            return
        if known.returned_batch >= self.findings.returned_batch:
            self.findings = replace(self.findings, returned_batch=-1, returned_rows=0)
        if known.differing_batch >= self.findings.differing_batch:
            self.findings = replace(self.findings, differing_batch=-1, differing_rows=0)

    def state_dict(self) -> dict[str, Any]:
        """Return what a new process has to look for, in plain values."""
        state = {"order": self.order, "chance": self._chance, "skipped_from": self._skipped_from}
        return {**state, "skipped": [*islice(self._skipped, MAX_SAVED_ROWS)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Look for what an earlier process has looked for; this one must have compared nothing yet."""
        if not self._rows and not self._pending:
            self.order, self._chance, self._skipped = state["order"], state["chance"], set(state["skipped"])
            self._skipped_from = state["skipped_from"]

    def _compare_pending(self, *, wait: bool = False) -> None:
        while self._pending and (wait or self._pending[0][1].is_ready()):
            key, rows = self._pending.popleft()
            self._compare(key, rows.values())

    def _compare(self, key: tuple[int, int], rows: "array[int]") -> None:
        index, known = key[0], self._rows.pop(key, None)
        self._rows[key] = rows
        self._num_rows += len(rows) - len(known or ())
        while self._num_rows > MAX_ROWS:
            _, oldest = self._rows.popitem(last=False)
            self._num_rows -= len(oldest)
        if known is not None and known != rows and key not in self._outdated and self.findings.differing_batch < 0:
            differing = sum(before != now for before, now in zip_longest(known, rows))
            self.findings = replace(self.findings, differing_batch=index, differing_rows=differing)
        self._outdated.discard(key)
        if self._skipped and index >= self._skipped_from:
            returned = sum(map(self._skipped.__contains__, rows))
            self._num_since, self._num_returned = self._num_since + len(rows), self._num_returned + returned
            if returned and self.findings.returned_batch < 0 and not self._is_by_chance():
                self.findings = replace(self.findings, returned_batch=index, returned_rows=returned)

    def _look_for(self, newest: Skip, ledger: Ledger) -> None:
        """Look for the samples of `newest`, except those that batches of the same pass hold, too, and are not skipped.

        Within a pass, equal samples say how often some are equal by chance.
        """
        skipped, kept = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
        num = Counter[int]()
        for (index, _), rows in self._rows.items():
            number = 0 if self.data is None else self.data.pass_of(index)
            num[number] += len(rows)
            if newest.skip_from <= index < newest.skip_to:
                skipped[number].update(rows)
            elif ledger.next_free(index) == index:
                kept[number].update(rows)
            else:
                num[number] -= len(rows)
        num_equal = sum(num[each] - len(skipped[each] | kept[each]) for each in num)
        num_pairs = sum(each * (each - 1) / 2 for each in num.values())
        self._chance = (num_equal + 1) / max(1.0, num_pairs)
        alone = (row for each in num for row in skipped[each] - kept[each])
        self._skipped, self._skipped_from = set(islice(alone, MAX_SKIPPED_ROWS)), newest.skip_from

    def _is_by_chance(self) -> bool:
        """Return True if so many skipped samples would come again in data of which they are left out.

        Samples may be equal: documents that occur twice, or windows that are drawn with replacement. The pairs of equal
        samples before the rollback, and one more, say how many equal ones to expect. Their number is about that of a
        Poisson distribution, for which both bounds are far out.
        """
        expected = self._num_since * len(self._skipped) * self._chance
        return self._num_returned <= max(10 * sqrt(expected), 2 * expected)
