"""Batches by absolute index, from any kind of training data."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


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
    """Reads batches by index from an Indexable, and in sequence from any other iterable."""

    def __init__(self, batches: Any) -> None:
        """`batches` is an Indexable or an iterable. Raises ValueError for an empty sequence."""
        self._batches = batches
        self.state: Seekable | None = batches if isinstance(batches, Seekable) else None
        """What of the batches belongs into checkpoints."""
        self._is_indexed = hasattr(batches, "__getitem__")
        self._length = len(self._batches) if self._is_indexed and hasattr(batches, "__len__") else None
        if self._length == 0:
            raise ValueError("batches is empty: there is nothing to train on")
        self._iterator: Iterator[Any] = iter(())
        self._position = 0  # index of the batch that the iterator yields next

    @property
    def can_peek(self) -> bool:
        """Whether any batch can be read at any time, without an effect on the others."""
        return self._is_indexed and self.state is None

    def first_available(self, index: int) -> int:
        """The first index at or after `index` that can still be read: an iterator cannot go back."""
        return max(index, self._position) if self._is_single_pass() else index

    def get(self, index: int, *, since: int | None = None) -> Any:
        """Batch `index`; finite data starts again at its end. Raises StopIteration when an iterator is exhausted.

        `since`: the batch that the training state would use next; those in between are skipped. Default: `index`.
        """
        if self.state is not None:
            self.state.seek(index, since=index if since is None else since)
        if self._is_indexed:
            return self._batches[index if self._length is None else index % self._length]
        if not self._position or index < self._position:
            self._iterator, self._position = iter(self._batches), 0
        while self._position <= index:
            batch = self._next()
            self._position += 1
        return batch

    def _next(self) -> Any:
        """The next batch; an exhausted iterable starts again, unless it is an iterator or empty."""
        try:
            return next(self._iterator)
        except StopIteration:
            if self._is_single_pass():
                raise
        self._iterator = iter(self._batches)
        return next(self._iterator)

    def _is_single_pass(self) -> bool:
        return not self._is_indexed and hasattr(self._batches, "__next__")
