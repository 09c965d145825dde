"""The training loader of a Trainer under a guard, and attributes that are replaced for a time."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

# Attributes of other objects that are replaced for a time, and put back as they were.

ABSENT = object()


class Hooks:
    """Replaced attributes. `remove` undoes all of them, the last one first."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Have `owner.name(...)` call `wrapper(original, ...)`."""
        self.set(owner, name, partial(wrapper, getattr(owner, name)))

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set `owner.name`, which the class of `owner` or `owner` itself must have."""
        self._replaced.append((owner, name, vars(owner).get(name, ABSENT)))
        setattr(owner, name, value)

    def remove(self) -> None:
        """Put all back."""
        while self._replaced:
            owner, name, earlier = self._replaced.pop()
            if earlier is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, earlier)


# The loader.


class Loader:
    """Gives the Trainer what `next_micro_batch()` returns. To others, such as callbacks, it is the `loader` itself.

    The Trainer is the one that has called `set_epoch` before.
    """

    def __init__(self, loader: Any, *, begin: Callable[[], None], next_micro_batch: Callable[[], Any]) -> None:
        self.loader = loader
        self.dataset = loader.dataset
        self.length: int | None = None
        """Micro-batches that the Trainer takes for an epoch; None before the training begins."""
        self._begin, self._next_micro_batch = begin, next_micro_batch
        self._is_for_trainer = False

    def __iter__(self) -> Iterator[Any]:
        if not self._is_for_trainer:
            return iter(self.loader)
        self._is_for_trainer = False
        self._begin()
        return self

    def __next__(self) -> Any:
        return self._next_micro_batch()

    def __len__(self) -> int:
        return len(self.loader) if self.length is None else self.length

    def __getattr__(self, name: str) -> Any:
        """Return other attributes of the loader, such as its `batch_size` and its `sampler`."""
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def set_epoch(self, epoch: int) -> None:
        """The Trainer makes an iterator next. The guard knows the epoch better."""
        self._is_for_trainer = True


class Filling(dict[str, Any]):
    """An empty micro-batch, which no step is trained on.

    The Trainer counts that every step has the same number of micro-batches, but for the last one of an epoch as it
    counts epochs. These stand in front of those of a step that has fewer.
    """


def empty_like(micro_batch: Any) -> Filling:
    """Without samples: every count of tokens in it is 0. What is no mapping has no names that the Trainer counts by."""
    if not isinstance(micro_batch, Mapping):
        return Filling()
    has_rows = {name: isinstance(each, Tensor) and each.dim() > 0 for name, each in micro_batch.items()}
    return Filling({name: each[:0] if has_rows[name] else each for name, each in micro_batch.items()})


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the loader, and a sampler of whole batches below accelerate's, as the Trainer does."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    sampler: Any = getattr(getattr(loader, "batch_sampler", None), "batch_sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
