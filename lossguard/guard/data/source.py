"""Batches by absolute index, from any kind of training data."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

from lossguard.guard.data.comparison import Repeats
from lossguard.guard.data.digests import row_digests
from lossguard.guard.data.random_numbers import OwnNumbers, leave_out, seeds_of_loop

MAX_PASSES = 1000
"""Newest passes whose first batch is remembered; to go further back, the data is read from its very beginning."""
KNOWN_PACKAGES = {"torch", "accelerate", "transformers", "datasets", "lightning", "pytorch_lightning", "builtins"}
"""Their samplers and streams draw from what they say they draw from: no need to try them."""
ADVICE = "batches[i] must be the same each time: see lossguard.torch.Drawn"
"""Advice about a user's own object whose batches do not repeat themselves."""


class Indexable(Protocol):
    """A data order: batch i is always the same batch, so that skipping is a jump and replaying is exact."""

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Seekable(Indexable, Protocol):
    """An Indexable that must know of jumps, and whose state belongs into checkpoints: `lossguard.torch.Batches`."""

    def seek(self, index: int, /, *, since: int) -> None:
        """The next batch is `index`. The training state is that before batch `since`; those in between are skipped."""

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain values."""

    def load_state_dict(self, state: Any, /) -> None:
        """Restore a state."""


class BatchSource:
    """Reads batches by index from whatever a loop trains on.

    * An object with `__getitem__`, such as a list or `Drawn`, is asked for each batch. One with a length starts over at
      its end.
    * A DataLoader, of torch or prepared by accelerate, becomes `Batches`.
    * Any other iterable, and any iterator, becomes a `Stream`.

    Raises ValueError for an empty sequence, and for data that cannot be read again in the same order.
    """

    def __init__(self, data: Any) -> None:
        self._batches = batches = _by_index(data)
        self.state: Seekable | None = batches if isinstance(batches, Seekable) else None
        """The part of the batches that belongs into checkpoints."""
        self.num_batches = len(batches) if self.state is None and hasattr(batches, "__len__") else None
        """Batches of a pass over a finite sequence, in which batch i is the same each time; None for other data."""
        if self.num_batches == 0:
            raise ValueError("batches is empty: there is nothing to train on")
        self._uses_numbers_of_loop = False if hasattr(batches, "repeats") else None  # None: not known yet
        # What the batches say of themselves, or else what holds for an object of the loop's own:
        length = self.num_batches or sys.maxsize
        self.advice: str = getattr(batches, "advice", ADVICE)
        """Advice for the case that a batch is another one when it is read again."""
        self.pass_of: Callable[[int], int] = getattr(batches, "pass_of", lambda index: index // length)
        """Returns the pass over finite data that a batch belongs to."""
        self.first_available: Callable[[int], int] = getattr(batches, "first_available", lambda index: index)
        """Returns the first index from an index on that can still be read: an iterator cannot go back."""
        self.parts_with_state: Callable[[], tuple[list[Any], list[Any]]]
        self.parts_with_state = getattr(batches, "parts_with_state", lambda: ([], []))
        """Returns (objects whose position is known here, samplers with another state, on which their order depends)."""

    @property
    def repeats(self) -> Repeats:
        """When a batch that is read again must be the same."""
        known: Repeats = getattr(self._batches, "repeats", Repeats.UNTIL_SKIP)
        return known

    def get(self, index: int, *, since: int | None = None) -> Any:
        """Batch `index`; finite data starts again at its end. Raises StopIteration when an iterator is exhausted.

        `since`: the batch that the training state would use next; those in between are skipped. Default: `index`.
        """
        since = index if since is None else since
        place = index if self.num_batches is None else index % self.num_batches
        if self.state is not None:
            self.state.seek(index, since=since)
        elif self._uses_numbers_of_loop is None:
            with nullcontext() if since == index else OwnNumbers().lent():
                before = seeds_of_loop()
                batch = self._batches[place]
                # For a mere number, the loop may draw its batch itself.
                self._uses_numbers_of_loop = row_digests(batch) is None or seeds_of_loop() != before
            if since == index:
                return batch
        if since < index and getattr(self._batches, "uses_numbers_of_loop", self._uses_numbers_of_loop):
            leave_out(since, index)
        return self._batches[place]

    def close(self) -> None:
        """End the workers of a loader, whose batches can still be read."""
        if (micro_batches := getattr(self._batches, "micro_batches", None)) is not None:
            micro_batches.end()


def _by_index(data: Any) -> Any:
    torch_data: Any = sys.modules.get("torch.utils.data")
    if torch_data is not None and (isinstance(data, torch_data.DataLoader) or hasattr(data, "base_dataloader")):
        from lossguard.guard.data.batches import Batches  # torch is loaded already

        return Batches(data)
    # That of torch inherits an index that raises; that of `datasets` has its columns by name.
    is_stream = any(kind.__name__ == "IterableDataset" for kind in type(data).__mro__)
    return Stream(data) if is_stream or not hasattr(type(data), "__getitem__") else data


class Stream:
    """Batch i of an iterable. What lies before it is read and dropped, and finite data begins again at its end.

    The iterable draws from random numbers of its own, and each pass begins with those that belong to the pass. So a
    pass that is read again has the same order, and a restore of the loop does not rewind the numbers of an iterator.
    `set_epoch(pass)` is called before a pass where the iterable has it, as a streaming data set of `datasets` does.

    An iterator, such as a generator, cannot begin again: after a rollback its next batch follows.

    Raises ValueError for an iterable that does not begin with the same batch when it is iterated over again.
    """

    repeats = Repeats.ALWAYS
    advice = "The iterable must give the same order each time: seed its own generators in __iter__"

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.is_single_pass = hasattr(batches, "__next__")
        self._numbers = OwnNumbers()
        if not self.is_single_pass:
            refuse_unrepeatable(batches)
        self._starts: deque[tuple[int, int]] = deque(maxlen=MAX_PASSES)  # pass, and index of its first batch
        self._iterator: Iterator[Any] | None = None
        self._position = 0  # index of the batch that the iterator yields next

    def parts_with_state(self) -> tuple[list[Any], list[Any]]:
        """Return (objects whose position is known here, nothing)."""
        return [self._batches], []

    def first_available(self, index: int) -> int:
        """Return the first index at or after `index` that can still be read."""
        return max(index, self._position) if self.is_single_pass else index

    def pass_of(self, index: int) -> int:
        """Return the pass of batch `index`; 0 where it is not known any more."""
        return max((number for number, start in self._starts if start <= index), default=0)

    def seek(self, index: int, *, since: int) -> None:
        """Make batch `index` the next one."""
        del since  # reading takes nothing from the state of the loop
        if self._iterator is None or (index < self._position and not self.is_single_pass):
            known = [start for start in self._starts if start[1] <= index]
            self._begin_pass(*(known[-1] if known else (0, 0)))
        while self._position < index:
            self._next()

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`. Raises StopIteration when an iterator is exhausted, or an iterable is empty."""
        self.seek(index, since=index)
        return self._next()

    def state_dict(self) -> dict[str, Any]:
        """Return what a new process cannot know, in plain values."""
        return {"seeds": dict(self._numbers.seeds), "starts": [list(start) for start in self._starts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state. What this process has read since stays: an iterator cannot go back."""
        if self._iterator is None:
            self._numbers = OwnNumbers(state["seeds"])
            self._starts.extend((number, index) for number, index in state["starts"])

    def _begin_pass(self, number: int, start: int) -> None:
        if not self.is_single_pass and hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(number)
        while self._starts and self._starts[-1][0] >= number:
            self._starts.pop()
        self._starts.append((number, start))
        self._numbers.begin(number)
        self._position = start
        with self._numbers.lent():
            self._iterator = iter(self._batches)

    def _next(self) -> Any:
        """Return the next batch, that of the next pass where one has ended."""
        assert self._iterator is not None
        end = object()
        with self._numbers.lent():
            batch = next(self._iterator, end)
        number, start = self._starts[-1]
        if batch is end:
            if self.is_single_pass or self._position == start:
                raise StopIteration
            self._begin_pass(number + 1, self._position)
            return self._next()
        self._position += 1
        return batch


def is_known(part: Any) -> bool:
    """Return True for a sampler or a stream of KNOWN_PACKAGES."""
    return type(part).__module__.split(".")[0] in KNOWN_PACKAGES


def refuse_unrepeatable(iterable: Any) -> None:
    """Raise ValueError, in a sentence, for what does not begin again with the same batch. Reads the first one twice."""
    if is_known(iterable):
        return
    numbers = OwnNumbers()
    begins = []
    for _ in range(2):
        numbers.begin(0)
        with numbers.lent():
            iterator = iter(iterable)
            begins.append((iterator, next(iterator, None)))
    (first_iterator, first), (second_iterator, second) = begins
    if first_iterator is second_iterator or not _may_be_same(first, second):
        raise ValueError(
            f"{type(iterable).__name__} begins with another batch each time: begin anew in __iter__, or give iter(..)"
        )


def _may_be_same(first: Any, second: Any) -> bool:
    digests = [row_digests(each) for each in (first, second)]
    if None not in digests:
        return digests[0].values() == digests[1].values()  # type: ignore[union-attr]
    is_plain = all(isinstance(each, int | float | None) for each in (first, second))
    return not is_plain or repr(first) == repr(second)
