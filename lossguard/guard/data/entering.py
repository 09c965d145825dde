"""Enters a loader at any batch of an epoch, and makes other batches of its samples: nothing else is loaded."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from lossguard.guard.data.loaders import draws_base_seed, leave

DATA_LOADER_ARGUMENTS = (
    *("dataset", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("generator", "prefetch_factor", "pin_memory_device", "in_order"),  # the last one since torch 2.6
)
Change = Callable[..., Iterable[Any]]
"""A function from the indices of the batches of an epoch to other ones: see `SkippedSamples.without`."""


def entered_at(
    loader: Any, offset: int, *, base_seed: bool = True, change: Change | None = None, **replaced: Any
) -> Any:
    """Return a loader of the same epoch without its first `offset` batches; `loader` must be `is_by_index`.

    Accelerate's loaders keep their state: what they prepare stays, and the loader inside begins later.
    `base_seed`: whether its iterator draws one from the generator of the loader, or else from torch's.
    `change`: applied to the indices of all batches of the epoch. `replaced`: other arguments of the DataLoader.
    """
    if hasattr(loader, "base_dataloader"):
        entered, num_each = object.__new__(type(loader)), num_dispatched(loader)
        if change is not None and dispatches(loader):
            change = partial(change, num_each=num_each, is_even=True)
        options: dict[str, Any] = {"base_seed": base_seed, "change": change, **replaced}
        begun = entered_at(loader.base_dataloader, offset * num_each, **options)
        vars(entered).update(vars(loader), base_dataloader=begun)
        return entered
    arguments = {name: getattr(loader, name) for name in DATA_LOADER_ARGUMENTS if hasattr(loader, name)}
    if not base_seed:
        arguments["generator"] = torch.Generator()
    arguments |= replaced
    if loader.batch_sampler is None:  # the samples, or a sampler of whole batches
        return DataLoader(batch_size=None, sampler=_From(loader.sampler, offset, change), **arguments)
    return DataLoader(batch_sampler=_From(loader.batch_sampler, offset, change, form=list), **arguments)


class _From(BatchSampler):
    """Yields what a sampler yields, changed by `change`, and without the first `offset`.

    `form`: the type in which `change` takes each batch; None: as the sampler gives it.
    """

    def __init__(
        self, inner: Any, offset: int, change: Change | None, form: Callable[[Any], Any] | None = None
    ) -> None:
        self.inner, self.offset, self.change, self.form = inner, offset, change, form

    def __iter__(self) -> Iterator[Any]:
        if self.change is None:
            return islice(self.inner, self.offset, None)
        given = self.inner if self.form is None else map(self.form, self.inner)
        return islice(self.change(given, shortest=_shortest(self.inner)), self.offset, None)

    def __len__(self) -> int:
        return max(0, len(self.inner) - self.offset)

    def __getattr__(self, name: str) -> Any:
        """Return what accelerate asks of a sampler, such as its `batch_size`."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def _shortest(sampler: Any) -> int | None:
    """Return the number of samples in the last batch of an epoch; None if all batches must keep their size."""
    if type(sampler) is not BatchSampler or sampler.drop_last or getattr(sampler.sampler, "num_replicas", 1) > 1:
        return None
    size = sampler.batch_size
    return (len(sampler.sampler) - 1) % size + 1  # type: ignore[arg-type]


def dispatches(loader: Any) -> bool:
    """Return True if process 0 reads the batches of all processes, which must have one size: accelerate can do so."""
    return hasattr(loader, "split_batches")


def num_dispatched(loader: Any) -> int:
    """Return how many batches of the loader inside become one batch of each process."""
    return 1 if getattr(loader, "split_batches", True) else int(loader.state.num_processes)


def indices_in(loader: Any, epoch: int, offsets: range) -> list[Any]:
    """Return the indices of the samples of each batch at `offsets`, without loading them; the epoch begins now."""
    here: dict[str, Any] = {"num_workers": 0, "prefetch_factor": None, "pin_memory": False, "timeout": 0}
    here |= {"multiprocessing_context": None, "dataset": _Indices(), "collate_fn": lambda batch: batch}
    opened = entered_at(loader, offsets.start, base_seed=draws_base_seed(loader, epoch), **here)
    num = len(offsets)
    if dispatches(loader):
        num = 0 if loader.state.process_index else num * num_dispatched(loader)
        opened = opened.base_dataloader
    if hasattr(opened, "iteration"):
        opened.iteration = epoch  # accelerate tells the samplers
    batches = list(islice(opened, num))
    leave(opened)
    return batches


class _Indices(Dataset[Any]):
    """Sample i is i."""

    def __getitem__(self, index: Any) -> Any:
        return index


def end_workers(loader: Any) -> None:
    """End the workers of a loader that persist."""
    inside = getattr(loader, "base_dataloader", loader)
    if getattr(inside, "_iterator", None) is not None:
        inside._iterator = None
