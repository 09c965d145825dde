"""Scalars that a device still computes: copied to the host without waiting, read later by another thread.

Torch is not imported: only a loop that uses it has values on a device.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from lossguard.vocabulary.protocol import plain

POLL_SECONDS = 0.001
"""Pause between two checks whether a device has computed a value."""


class HostCopy:
    """The value of a device tensor at this point of its stream; creating one does not wait."""

    def __init__(self, tensor: Any) -> None:
        self._event = _event_on(tensor.device)
        # A copy to pinned host memory, ordered on the caller's stream. Reading the device tensor in the background
        # would wait for all work that the loop has queued by then, for each value, and fall further and further behind.
        self._value = tensor.clone() if self._event is None else tensor.to("cpu", non_blocking=True)
        if self._event is not None:
            self._event.record(sys.modules["torch"].accelerator.current_stream(tensor.device))

    def is_ready(self) -> bool:
        """True if `value` need not wait for the device."""
        return self._event is None or bool(self._event.query())

    def value(self) -> Any:
        """Wait for the device and return the tensor in host memory."""
        while not self.is_ready():
            time.sleep(POLL_SECONDS)  # a driver may wait in a busy loop, which takes a core from the training
        return self._value


class PendingScalar:
    """The value that a device tensor has (or will have) at this point of its stream: one place of a copy."""

    def __init__(self, copy: HostCopy, place: int | None = None) -> None:
        """`place`: in a copy of several values; None: it is the only one."""
        self._copy, self._place = copy, place

    def resolve(self) -> float | int:
        """Wait for the device and return the number. Raises TypeError when it is not a scalar."""
        value = self._copy.value()
        return plain(value if self._place is None else value[self._place])


def copied(tensors: Mapping[str, Any]) -> tuple[dict[str, PendingScalar], dict[str, Exception]]:
    """(the values of device tensors, why others cannot be had), without waiting for a device.

    The 0-dim torch tensors of one device and type share one copy, however many are logged at a step.
    """
    groups: dict[Any, dict[str, Any]] = {}
    problems: dict[str, Exception] = {}
    torch: Any = sys.modules.get("torch")
    for name, tensor in tensors.items():
        if hasattr(tensor, "full_tensor"):  # reading it is a collective, which only the loop may run
            problems[name] = TypeError("a distributed tensor is not a scalar; log its .full_tensor()")
            continue
        is_alone = torch is None or not isinstance(tensor, torch.Tensor) or tensor.dim() > 0
        groups.setdefault(name if is_alone else (tensor.device, tensor.dtype), {})[name] = tensor.detach()
    pending: dict[str, PendingScalar] = {}
    for group in groups.values():
        try:
            if len(group) == 1:
                pending |= {name: PendingScalar(HostCopy(tensor)) for name, tensor in group.items()}
            else:
                copy = HostCopy(torch.stack([*group.values()]))
                pending |= {name: PendingScalar(copy, place) for place, name in enumerate(group)}
        except Exception as problem:  # a device may raise anything
            problems |= dict.fromkeys(group, problem)
    return pending, problems


def _event_on(device: Any) -> Any | None:
    """An event of torch's accelerator; None for any other device, where a clone is read instead."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "accelerator"):
        return None
    accelerator = torch.accelerator.current_accelerator()
    return None if accelerator is None or accelerator.type != device.type else torch.Event(device)
