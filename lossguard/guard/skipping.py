"""Skip an optimizer's update by a verdict that may lie on a device, as if the step had not been called.

* Found inf: the fused optimizers of torch take the verdict themselves, as `found_inf`, which GradScaler uses.
* On the host: the verdict is read. That waits for nothing if it is computed on the CPU.
* Masked: the step is taken, and weights and state are put back on the device.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Optimizer

from lossguard.run.collectives import local_part

FUSED = (Adam, SGD, Adagrad)
"""Optimizers of torch whose fused steps take `found_inf`; AdamW is an Adam."""


class Skipping:
    """Takes the step of one optimizer, which may wrap the `inner` one, or skips it."""

    def __init__(self, optimizer: Optimizer, inner: Optimizer) -> None:
        self._optimizer, self._inner = optimizer, inner
        self.device = next(_parameters(inner)).device
        """Device of the parameters."""

    @abstractmethod
    def step(self, skip: Tensor, scaler: Any) -> None:
        """Take a step, through the GradScaler if there is one, unless `skip` (0-dim float) is 1."""

    def forget(self) -> None:
        """The optimizer was restored, perhaps to before it had the state that its first step makes."""


def skipping_for(optimizer: Optimizer, tell: Callable[[str], None]) -> Skipping:
    """The cheapest exact way. `tell` is called with one sentence if it has to wait for the device.

    `optimizer` may wrap another one in its attribute `optimizer`, as accelerate's do. Raises ValueError for anything
    else than an optimizer of torch with parameters.
    """
    inner: Any = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer) or not any(group["params"] for group in inner.param_groups):
        raise ValueError(f"{type(optimizer).__name__} is not a torch optimizer with parameters")
    is_of_torch = isinstance(inner, FUSED) and type(inner).__module__.startswith("torch.optim.")
    if is_of_torch and all(group.get("fused") for group in inner.param_groups):
        return FoundInf(optimizer, inner)
    if all(each.device.type == "cpu" for each in _parameters(inner)):
        return OnHost(optimizer, inner)
    return Masked(optimizer, inner, tell)


class FoundInf(Skipping):
    """By the verdict that a fused step of torch takes as `found_inf`: it changes neither weights nor state then."""

    def __init__(self, optimizer: Optimizer, inner: Optimizer) -> None:
        super().__init__(optimizer, inner)
        # A fused SGD that skips its first step leaves its momentum uninitialised (torch 2.13).
        has_momentum = isinstance(inner, SGD) and any(group["momentum"] != 0 for group in inner.param_groups)
        self._first = OnHost(optimizer, inner) if has_momentum else None

    def step(self, skip: Tensor, scaler: Any) -> None:
        if self._first is not None and not self._inner.state:
            self._first.step(skip, scaler)
            return
        inner: Any = self._inner

        def combine(*_: Any) -> None:
            """A GradScaler has set a `found_inf` of its own."""
            inner.found_inf = torch.maximum(inner.found_inf, skip.to(inner.found_inf.device))

        has_scaler = scaler is not None or self._optimizer is not inner  # one may be within a wrapper
        hook = inner.register_step_pre_hook(combine) if has_scaler else None
        inner.found_inf = skip
        try:
            _take(self._optimizer, scaler)
        finally:
            vars(inner).pop("found_inf", None)
            if hook is not None:
                hook.remove()


class OnHost(Skipping):
    """By not calling the step."""

    def step(self, skip: Tensor, scaler: Any) -> None:
        if not bool(skip):
            _take(self._optimizer, scaler)
            return
        within = getattr(self._optimizer, "scaler", None)  # of a wrapper whose step calls scaler.update(), too
        used = within if scaler is None else scaler
        if used is not None:
            with suppress(RuntimeError):  # it was called already
                used.unscale_(self._inner)  # without it, scaler.update() would raise
        if scaler is None and within is not None:
            within.update()


class Masked(Skipping):
    """By copies of weights and state on the device, from which both are put back.

    It costs the memory of one more copy of both. An optimizer whose state cannot be put back there, because it has
    numbers on the host, waits for the verdict instead.
    """

    def __init__(self, optimizer: Optimizer, inner: Optimizer, tell: Callable[[str], None]) -> None:
        super().__init__(optimizer, inner)
        self._tell = tell
        self._on_host = OnHost(optimizer, inner)
        self._known: set[Tensor] = set()  # parameters whose state has been made
        self._copies: list[Tensor] = []
        self._waits = False

    def forget(self) -> None:
        self._known.clear()

    def step(self, skip: Tensor, scaler: Any) -> None:
        updated = [each for each in _parameters(self._inner) if each.grad is not None]
        if self._waits or not self._known.issuperset(updated):
            self._step_on_host(updated, skip, scaler)
            return
        before = self._tensors(updated)
        if [each.shape for each in before] != [each.shape for each in self._copies]:
            self._copies = [torch.empty_like(each) for each in before]
        torch._foreach_copy_(self._copies, before)
        _take(self._optimizer, scaler)
        is_skipped = skip > 0
        for old, new in zip(self._copies, self._tensors(updated), strict=True):
            new.copy_(torch.where(is_skipped.to(new.device), old, new))

    def _step_on_host(self, updated: list[Tensor], skip: Tensor, scaler: Any) -> None:
        """The first step makes the state: what it was before cannot be put back."""
        groups = self._group_values()
        self._on_host.step(skip, scaler)
        if self._waits or bool(skip):
            return
        self._known.update(updated)
        on_device = all(isinstance(value, Tensor) and value.device == self.device for value in self._state_of(updated))
        if not on_device or self._group_values() != groups:
            self._waits = True
            self._tell(
                f"the gate waits for the device: {type(self._inner).__name__} has state in host memory; "
                "use fused=True or capturable=True"
            )

    def _tensors(self, updated: list[Tensor]) -> list[Tensor]:
        return [local_part(each) for each in (*updated, *self._state_of(updated))]

    def _state_of(self, updated: list[Tensor]) -> list[Any]:
        state = self._inner.state
        return [value for each in updated for value in state.get(each, {}).values() if value is not None]

    def _group_values(self) -> list[dict[str, Any]]:
        """Counters that an optimizer keeps in its groups."""
        return [
            {name: value for name, value in group.items() if isinstance(value, bool | int | float | str)}
            for group in self._inner.param_groups
        ]


def _take(optimizer: Optimizer, scaler: Any) -> None:
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (each for group in optimizer.param_groups for each in group["params"])
