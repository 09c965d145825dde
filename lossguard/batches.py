"""Batches by absolute index, from whatever the user trains on."""

from collections.abc import Iterator
from typing import Any, Protocol


class Indexable(Protocol):
    """A data order: batch i is always the same batch, so that a skip is a jump."""

    def __getitem__(self, index: int, /) -> Any: ...


class Feed:
    def __init__(self, batches: Any) -> None:
        """`batches` is an Indexable or an iterable. Raises ValueError when it is a sequence without any."""
        self._batches = batches
        self._indexed = hasattr(batches, "__getitem__")
        self._length = len(self._batches) if self._indexed and hasattr(batches, "__len__") else None
        if self._length == 0:
            raise ValueError("batches is empty: there is nothing to train on")
        self._iterator: Iterator[Any] = iter(())
        self._position = 0  # index of the batch that the iterator yields next

    def earliest(self, index: int) -> int:
        """`index`, or the first index that can still be had: an iterator that cannot start over has no way back."""
        return max(index, self._position) if self._is_once() else index

    def get(self, index: int) -> Any:
        """Batch `index`; what has an end starts over there. Raises StopIteration when an iterator is exhausted."""
        if self._indexed:
            return self._batches[index if self._length is None else index % self._length]
        if not self._position or index < self._position:
            self._iterator, self._position = iter(self._batches), 0
        while self._position <= index:
            batch = self._next()
            self._position += 1
        return batch

    def _next(self) -> Any:
        """The next batch; an iterable that is exhausted starts over, unless it is an iterator or empty."""
        try:
            return next(self._iterator)
        except StopIteration:
            if self._is_once():
                raise
        self._iterator = iter(self._batches)
        return next(self._iterator)

    def _is_once(self) -> bool:
        return not self._indexed and hasattr(self._batches, "__next__")
