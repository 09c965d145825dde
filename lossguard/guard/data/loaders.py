"""Parts of a loader of batches: what of it cannot be read again, the orders of its epochs, and entering one of them."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from lossguard.checkpoints.state import digest, generators, restore_generators
from lossguard.guard.data.source import is_known, refuse_unrepeatable

# What a loader of batches is made of.
#
# A loader is a `torch.utils.data.DataLoader`, one that accelerate has prepared, or any other object that can be
# iterated over again and again.

PARTS = ("base_dataloader", "batch_sampler", "sampler")


def parts_of(loader: Any) -> list[Any]:
    """The loader, the loaders and samplers inside it, and at last its dataset, where it has one."""
    parts: list[Any] = []
    todo = [loader]
    while todo:
        part = todo.pop()
        if part is not None and not any(part is known for known in parts):
            parts.append(part)
            todo += [getattr(part, name, None) for name in PARTS]
    dataset = getattr(loader, "dataset", None)
    return parts if dataset is None else [*parts, dataset]


def is_by_index(loader: Any) -> bool:
    """Return True if the loader reads samples by index, so that it can pass over some without loading them."""
    is_known = type(loader) is DataLoader or hasattr(loader, "base_dataloader")
    return is_known and not isinstance(loader.dataset, IterableDataset)


def set_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch of the loader if it has one (it sets those inside), or else of its samplers and its dataset."""
    own = getattr(loader, "set_epoch", None)
    for part in [loader] if own is not None else parts_of(loader):
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def draws_base_seed(loader: Any, epoch: int) -> bool:
    """Return True if the iterator draws a seed for its workers before the sampler; persistent workers have one."""
    inside = getattr(loader, "base_dataloader", loader)
    return isinstance(inside, DataLoader) and (epoch == 0 or not inside.persistent_workers)


def draw_base_seed(loader: Any, epoch: int) -> None:
    """Draw from torch's generator what making the iterator of an epoch draws from it."""
    if draws_base_seed(loader, epoch) and getattr(loader, "generator", None) is None:
        torch.empty((), dtype=torch.int64).random_()


def own_generators(loader: Any) -> list[torch.Generator]:
    """Generators of the loader and its samplers, apart from those of samplers that seed them anew with each epoch."""
    found: dict[int, torch.Generator] = {}
    for part in parts_of(loader):
        if part is loader or not hasattr(part, "set_epoch"):
            values = getattr(part, "__dict__", {}).values()
            found |= {id(value): value for value in values if isinstance(value, torch.Generator)}
    return list(found.values())


def leave(opened: Any) -> None:
    """Tell accelerate that a loader is in use no more: it would take one that was given up for the one in use."""
    gradients = getattr(opened, "gradient_state", None)
    if gradients is not None and any(each is opened for each in gradients.dataloader_references):
        opened.end()


def refuse_without_order(loader: Any) -> None:
    """Raise ValueError, in a sentence, for a loader whose batches cannot be read again in the same order."""
    for part in parts_of(loader):
        if hasattr(part, "__next__"):
            raise ValueError(
                f"{_named(part)} can be read only once: give a DataLoader whose dataset and samplers can be read again"
            )
        if getattr(part, "use_stateful_dataloader", False):
            raise ValueError(
                "use_stateful_dataloader=True has the loader resume by itself, as Lossguard does: leave it at False"
            )
        if getattr(part, "even_batches", True) is False and part.num_processes > 1 and not part.drop_last:
            raise ValueError(
                "even_batches=False gives the processes different numbers of batches: use True, or drop_last=True"
            )
    if not is_by_index(loader):
        _refuse_unrepeatable_dataset(loader)
        return
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    try:
        len(loader)
    except TypeError:
        endless = [part for part in parts_of(sampler) if not hasattr(part, "__len__")] or [sampler]
        units = "batches" if endless[-1] is loader.batch_sampler else "samples"
        raise ValueError(
            f"{_named(endless[-1])} has no length: give it a __len__, the number of {units} of an epoch"
        ) from None
    own = [part for part in parts_of(sampler) if not is_known(part)]
    if own and not _repeats_itself(sampler, loader.dataset):
        raise ValueError(
            f"{_named(own[0])} gives another order each time: derive its order from a seed and the epoch (set_epoch), "
            "or a torch.Generator"
        )


def _refuse_unrepeatable_dataset(loader: Any) -> None:
    """Refuse an iterable dataset that does not repeat; what workers read is not tried in this process."""
    inside = getattr(loader, "base_dataloader", loader)
    dataset = getattr(inside, "dataset", None)
    if not isinstance(dataset, IterableDataset) or is_known(dataset):
        return
    if getattr(inside, "persistent_workers", False):
        raise ValueError(
            f"{_named(dataset)} goes on with persistent workers, so no batch can be read again: "
            "use persistent_workers=False"
        )
    if not getattr(inside, "num_workers", 0):
        refuse_unrepeatable(dataset)


def _repeats_itself(sampler: Any, dataset: Any) -> bool:
    """Return True if a copy of the sampler begins the same twice with the same states of its generators."""
    try:
        sampler = copy.deepcopy(sampler, {id(dataset): dataset})  # the dataset may be large
    except Exception:  # what cannot be copied cannot be tried, and may well be right
        return True
    before, mine = generators(), own_generators(sampler)
    states = [generator.get_state() for generator in mine]
    begins = []
    for _ in range(2):
        restore_generators(before)
        for generator, state in zip(mine, states, strict=True):
            generator.set_state(state)
        set_epoch(sampler, 0)
        begins.append([str(each) for each in islice(iter(sampler), 3)])
    restore_generators(before)
    return begins[0] == begins[1]


def parts_with_state(loader: Any) -> tuple[list[Any], list[Any]]:
    """Return (parts whose state is their position, samplers with another state, on which their order depends)."""
    dataset = getattr(loader, "dataset", None)
    ours = [part for part in parts_of(loader) if part is not dataset or isinstance(part, IterableDataset)]
    parts = [part for part in ours if hasattr(part, "state_dict") and hasattr(part, "load_state_dict")]
    ordering = [part for part in parts if part is not loader and part is not dataset and _keeps_state(part, dataset)]
    return [part for part in parts if part not in ordering], ordering


def _keeps_state(sampler: Any, dataset: Any) -> bool:
    """Return True if the sampler has a state that does not move with its position, such as one of the losses."""
    try:
        sampler = copy.deepcopy(sampler, {id(dataset): dataset})
        before, state = generators(), digest(sampler.state_dict())
        deque(islice(iter(sampler), 3), maxlen=0)
        restore_generators(before)
        return bool(state) and digest(sampler.state_dict()) == state
    except Exception:  # what cannot be tried may well be a position
        return False


def _named(part: Any) -> str:
    is_data = hasattr(part, "__next__") or isinstance(part, IterableDataset)
    return f"the {'dataset or loader' if is_data else 'sampler'} {type(part).__name__}"


# The random numbers from which a loader draws the order of its epochs, so that an epoch can be begun again.
#
# Most samplers compute their order from a seed and the epoch: then there is nothing to keep. `DataLoader(shuffle=True)`
# draws it from a generator of its own if it was given one, and else from torch's, as the loop does.


MAX_EPOCHS = 100
"""Newest epochs whose generators are remembered, of 5 kB each and more: all of them are in every checkpoint."""


class EpochOrders:
    """The generators as they were before the order of an epoch was drawn from them, for the newest such epochs."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._drawn: dict[int, dict[str, Any]] = {}
        self.begun: set[int] = set()
        """The numbers of the epochs that have begun, and so have an order."""

    @contextmanager
    def drawing(self, epoch: int, *, is_due: bool) -> Iterator[None]:
        """A context for making an iterator and reading its first batch: the order is the one that it was before.

        `is_due`: the loop begins the epoch now, and its generators lose what the loader draws; otherwise nothing.
        """
        before, own = generators(), self._own_states()
        drawn = self._drawn.get(epoch)
        if drawn is not None:
            self._set_own_states(drawn["own"])
            earlier = before | drawn["process"]
            if "torch" in drawn["process"]:
                earlier["torch"] = _unhex(earlier["torch"])
            is_due &= not changed_generators(before, earlier)  # the loop is where it has begun the epoch before
            restore_generators(earlier)
        yield
        if drawn is None:
            from_torch = draws_base_seed(self._loader, epoch) and getattr(self._loader, "generator", None) is None
            changed = changed_generators(before, generators(), base_seed=from_torch)
            if own or changed:
                plain = before | {"torch": _hex(before["torch"])}
                process = {name: plain[name] for name in sorted(changed | {"torch"} if changed else ())}
                self._drawn[epoch] = {"own": own, "process": process}
                for old in [each for each in self._drawn if each <= epoch - MAX_EPOCHS]:
                    del self._drawn[old]
        self.begun.add(epoch)
        if not is_due:
            restore_generators(before)

    @contextmanager
    def drawing_again(self, epoch: int) -> Iterator[None]:
        """A context for drawing the order of an epoch that has begun, which leaves no trace in any generator."""
        before, own = generators(), self._own_states()
        try:
            with self.drawing(epoch, is_due=False):
                yield
        finally:
            restore_generators(before)
            self._set_own_states(own)

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain values."""
        drawn = {str(epoch): dict(each) for epoch, each in self._drawn.items()}
        return {"drawn": drawn, "own": self._own_states(), "begun": sorted(self.begun)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; what is known of later epochs stays, because their order was seen."""
        self._drawn |= {int(epoch): dict(each) for epoch, each in state["drawn"].items()}
        self.begun.update(state["begun"])
        self._set_own_states(state["own"])

    def forget_since(self, state: Mapping[str, Any]) -> None:
        """Forget the epochs that have begun since this state: their orders will be drawn anew."""
        self._drawn = {int(epoch): dict(each) for epoch, each in state["drawn"].items()}
        self.begun = set(state["begun"])

    def _own_states(self) -> list[str]:
        return [_hex(generator.get_state()) for generator in own_generators(self._loader)]

    def _set_own_states(self, states: list[str]) -> None:
        for generator, state in zip(own_generators(self._loader), states, strict=False):
            generator.set_state(_unhex(state))


def changed_generators(before: Mapping[str, Any], after: Mapping[str, Any], *, base_seed: bool = False) -> set[str]:
    """Name the generators of the process that have changed; not torch's if only a `base_seed` was drawn."""
    changed = {name for name in ("python", "numpy") if name in before and before[name] != after[name]}
    expected = [before["torch"]]
    if base_seed:  # as an iterator of a DataLoader draws it for its workers
        generator = torch.Generator()
        generator.set_state(before["torch"])
        torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator)
        expected.append(generator.get_state())
    return changed if any(torch.equal(state, after["torch"]) for state in expected) else changed | {"torch"}


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _unhex(state: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8, device="cpu")


# Entering an epoch at any batch, and making other batches of its samples: nothing else is loaded.

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
