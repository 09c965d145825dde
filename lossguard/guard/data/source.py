"""Batches by absolute index, from any kind of training data."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

from lossguard.guard.data.comparison import Repeats
from lossguard.guard.data.digests import row_digests
from lossguard.guard.data.random_numbers import OwnNumbers, leave_out, seeds_of_loop
from lossguard.guard.data.stream import Stream

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
        self._length = len(batches) if self.state is None and hasattr(batches, "__len__") else None
        if self._length == 0:
            raise ValueError("batches is empty: there is nothing to train on")
        self._uses_numbers_of_loop = False if hasattr(batches, "repeats") else None  # None: not known yet

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass over a finite sequence, in which batch i is the same each time; None for other data."""
        return self._length

    @property
    def can_peek(self) -> bool:
        """True if any batch can be read at any time, without an effect on the others."""
        return self.state is None

    @property
    def repeats(self) -> Repeats:
        """When a batch that is read again must be the same."""
        known: Repeats = getattr(self._batches, "repeats", Repeats.UNTIL_SKIP)
        return known

    @property
    def advice(self) -> str:
        """Advice for the case that the batch is another one nevertheless."""
        advice: str = getattr(self._batches, "advice", ADVICE)
        return advice

    def pass_of(self, index: int) -> int:
        """Return the pass over finite data that batch `index` belongs to."""
        known: Callable[[int], int] = getattr(
            self._batches, "pass_of", lambda index: index // (self._length or sys.maxsize)
        )
        return known(index)

    def parts_with_state(self) -> tuple[list[Any], list[Any]]:
        """Return (objects whose position is known here, samplers with another state, on which their order depends)."""
        known: Callable[[], tuple[list[Any], list[Any]]] = getattr(self._batches, "parts_with_state", lambda: ([], []))
        return known()

    def first_available(self, index: int) -> int:
        """The first index at or after `index` that can still be read: an iterator cannot go back."""
        available: Callable[[int], int] = getattr(self._batches, "first_available", lambda index: index)
        return available(index)

    def get(self, index: int, *, since: int | None = None) -> Any:
        """Batch `index`; finite data starts again at its end. Raises StopIteration when an iterator is exhausted.

        `since`: the batch that the training state would use next; those in between are skipped. Default: `index`.
        """
        since = index if since is None else since
        place = index if self._length is None else index % self._length
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


def _by_index(data: Any) -> Any:
    torch_data: Any = sys.modules.get("torch.utils.data")
    if torch_data is not None and (isinstance(data, torch_data.DataLoader) or hasattr(data, "base_dataloader")):
        from lossguard.guard.data.batches import Batches  # torch is loaded already

        return Batches(data)
    # That of torch inherits an index that raises; that of `datasets` has its columns by name.
    is_stream = any(kind.__name__ == "IterableDataset" for kind in type(data).__mro__)
    return Stream(data) if is_stream or not hasattr(type(data), "__getitem__") else data
