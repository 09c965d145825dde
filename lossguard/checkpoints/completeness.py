"""Find objects that a training step depends on and that the checkpoints were not given, before the first step."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

MAX_DEPTH, MAX_ITEMS = 4, 1000
"""Maximum depth of the attributes that are searched, and maximum length of a list among them."""
ARGUMENTS: dict[type, str] = {
    Optimizer: "optimizer",
    LRScheduler: "scheduler",
    GradScaler: "scaler",
    AveragedModel: "ema",
}
"""The kinds of objects that are looked for, and the argument of Checkpoints that usually holds one."""


def missing(saved: Iterable[Any], left_out: Iterable[Any] = (), samplers: Iterable[Any] = ()) -> list[tuple[type, str]]:
    """Return the class and the usual argument of each object that belongs to the `saved` ones and is not among them.

    A scheduler belongs to its optimizer, an optimizer to the model whose parameters no other one holds, an EMA to the
    model that has its shapes, an enabled GradScaler to any optimizer, and each of the `samplers` in any case. What an
    object holds in its attributes is saved with it. `left_out`: objects that are not missed.
    """
    known = _Known([*saved, *left_out])
    others = [(type(each), "sampler") for each in samplers if each not in known]
    if not known.of(Optimizer, nn.Module) or not _missed(known):
        return others
    gc.collect()  # what nothing refers to any more may be in a cycle
    found = _missed(known)
    inner = {id(part) for each in found for part in _closure([each]) if part is not each}
    outer = [each for each in found if id(each) not in inner]
    names = [next(name for kind, name in ARGUMENTS.items() if isinstance(each, kind)) for each in outer]
    return [*zip(map(type, outer), names, strict=True), *others]


class _Known:
    """The objects that checkpoints hold, with their parts."""

    def __init__(self, objects: Iterable[Any]) -> None:
        self._parts = {id(part): part for part in _closure(objects)}
        self.optimizers = self.of(Optimizer)
        averaged = {id(part) for each in self.of(AveragedModel) for part in each.modules()}
        modules = [each for each in self.of(nn.Module) if id(each) not in averaged]
        self.shapes = {_shapes(each) for each in modules} - {()}
        held = {id(each) for optimizer in self.optimizers for each in _parameters(optimizer)}
        self.without_optimizer = {
            id(each)
            for module in modules
            for each in module.parameters()
            if each.requires_grad and id(each) not in held
        }

    def __contains__(self, instance: Any) -> bool:
        return id(instance) in self._parts

    def of(self, *kinds: type) -> list[Any]:
        return [each for each in self._parts.values() if isinstance(each, kinds)]

    def misses(self, instance: Any) -> bool:
        """Return True if the object belongs to those that are known, and is none of them."""
        if instance in self:
            return False
        if isinstance(instance, LRScheduler):
            return any(getattr(instance, "optimizer", None) is each for each in self.optimizers)
        if isinstance(instance, Optimizer):
            return any(id(each) in self.without_optimizer for each in _parameters(instance))
        if isinstance(instance, GradScaler):
            is_new = getattr(instance, "_scale", None) is None  # one that was in use scales for another loop
            return bool(self.optimizers) and instance.is_enabled() and is_new and not self.of(GradScaler)
        return _shapes(instance) in self.shapes and not self.of(AveragedModel)


def _missed(known: _Known) -> list[Any]:
    kinds = set(_with_subclasses(ARGUMENTS))
    return [each for each in gc.get_objects() if type(each) in kinds and known.misses(each)]


def _with_subclasses(kinds: Iterable[type]) -> Iterator[type]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(kind.__subclasses__())


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    return tuple(parameter.shape for parameter in module.parameters())


def _closure(objects: Iterable[Any]) -> list[Any]:
    """The objects and what their states consist of, as far as it can be seen."""
    found: dict[int, Any] = {}
    level = list(objects)
    for _ in range(MAX_DEPTH):
        level = [each for each in level if id(each) not in found]
        found |= {id(each): each for each in level}
        level = [part for each in level for part in _parts(each)]
    return list(found.values())


def _parts(instance: Any) -> list[Any]:
    if isinstance(instance, nn.Module):
        return list(instance.modules())
    if isinstance(instance, LRScheduler):  # not its optimizer
        return list(getattr(instance, "_schedulers", ()))
    if isinstance(instance, list | tuple | Mapping):
        values = instance.values() if isinstance(instance, Mapping) else instance
        return [each for each in values if _may_have_state(each)] if len(instance) <= MAX_ITEMS else []
    is_part: Callable[[Any], bool] = _may_have_state
    if isinstance(instance, Optimizer):  # its state is that of an optimizer inside of it
        is_part = lambda each: isinstance(each, Optimizer)  # noqa: E731
    return [each for each in getattr(instance, "__dict__", {}).values() if is_part(each)]


def _may_have_state(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) or hasattr(type(value), "state_dict")
