"""Parts of a loader of batches: what of it cannot be read again, and the orders of its epochs."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from lossguard.checkpoints.state import digest, generators, restore_generators
from lossguard.guard.data.source import KNOWN_PACKAGES, refuse_unrepeatable

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
    found: list[torch.Generator] = []
    for part in parts_of(loader):
        values = {} if hasattr(part, "set_epoch") and part is not loader else getattr(part, "__dict__", {})
        for value in values.values():
            if isinstance(value, torch.Generator) and not any(value is known for known in found):
                found.append(value)
    return found


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
    own = [part for part in parts_of(sampler) if type(part).__module__.split(".")[0] not in KNOWN_PACKAGES]
    if own and not _repeats_itself(sampler, loader.dataset):
        raise ValueError(
            f"{_named(own[0])} gives another order each time: derive its order from a seed and the epoch (set_epoch), "
            "or a torch.Generator"
        )


def _refuse_unrepeatable_dataset(loader: Any) -> None:
    """Refuse an iterable dataset that does not repeat; what workers read is not tried in this process."""
    inside = getattr(loader, "base_dataloader", loader)
    dataset = getattr(inside, "dataset", None)
    if not isinstance(dataset, IterableDataset) or type(dataset).__module__.split(".")[0] in KNOWN_PACKAGES:
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
    expected = [before["torch"], *([_after_base_seed(before["torch"])] if base_seed else [])]
    return changed if any(torch.equal(state, after["torch"]) for state in expected) else changed | {"torch"}


def _after_base_seed(state: torch.Tensor) -> torch.Tensor:
    """The state after an iterator of a DataLoader has drawn the seed of its workers."""
    generator = torch.Generator()
    generator.set_state(state)
    torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator)
    return generator.get_state()


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _unhex(state: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8, device="cpu")
