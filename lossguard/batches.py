"""Batches by absolute index, from whatever the user trains on."""

from collections.abc import Iterator
from typing import Any, Protocol


class Indexable(Protocol):
    """A data order: batch i is always the same batch, so that a skip is a jump."""

    def __getitem__(self, index: int, /) -> Any: ...


class Feed:
    def __init__(self, batches: Any) -> None:
        """`batches` is an Indexable or an iterable."""
        self._batches = batches
        self._indexed = hasattr(batches, "__getitem__")
        self._length = len(self._batches) if self._indexed and hasattr(batches, "__len__") else None
        self._iterator: Iterator[Any] | None = None
        self._position = 0  # index of the batch that the iterator yields next

    def earliest(self, index: int) -> int:
        """`index`, or the first index that can still be had: an iterator that cannot start over has no way back."""
        return max(index, self._position) if self._is_once() else index

    def get(self, index: int) -> Any:
        """Batch `index`; what has an end starts over there. Raises StopIteration when an iterator is exhausted."""
        if self._indexed:
            return self._batches[index if self._length is None else index % self._length]
        if self._iterator is None or index < self._position:
            self._iterator, self._position = iter(self._batches), 0
        while True:
            before = self._position
            for batch in self._iterator:
                self._position += 1
                if self._position > index:
                    return batch
            if self._is_once() or self._position == before:
                raise StopIteration(index)
            self._iterator = iter(self._batches)

    def _is_once(self) -> bool:
        return not self._indexed and hasattr(self._batches, "__next__")
