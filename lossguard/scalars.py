"""From what users log (Python and NumPy scalars, 0-dim tensors) to plain numbers, never waiting for a device.

Nothing here imports NumPy or torch: values are told apart by their attributes.
"""

import math
import sys
import time
from typing import Any

POLL = 0.001
"""Seconds between two looks at whether a device has come to a value."""
EXACT = 2**53
"""Integers up to here survive the way through a float."""


def plain(value: Any) -> float | int:
    """Return a Python number for `value`, which lies on the host. Raises TypeError when it is no scalar."""
    if isinstance(value, int):  # bool too
        return int(value) if -EXACT <= value <= EXACT else _float_of(value)
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{value!r:.40} is not a number")
    try:
        return float(value.item() if hasattr(value, "item") else value)  # float() of a tensor with gradient warns
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a {type(value).__name__} is not a scalar") from None


def _float_of(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def on_device(value: Any) -> bool:
    """Whether reading `value` would make the caller wait for an accelerator."""
    return getattr(getattr(value, "device", None), "type", "cpu") != "cpu"


class Snapshot:
    """The value that a device tensor has (or will have) at this point of its stream; taking one waits for nothing."""

    def __init__(self, tensor: Any) -> None:
        if hasattr(tensor, "full_tensor"):  # reading a sharded tensor is a collective: only the loop may do that
            raise TypeError("a distributed tensor is not a scalar; log its .full_tensor()")
        tensor = tensor.detach()
        self._event = _event_on(tensor.device)
        # A copy to pinned host memory, ordered on the caller's stream. Reading the device tensor in the background
        # would instead wait for all that the loop has queued by then, once a value, and fall ever further behind.
        self._value = tensor.clone() if self._event is None else tensor.to("cpu", non_blocking=True)
        if self._event is not None:
            self._event.record(sys.modules["torch"].accelerator.current_stream(tensor.device))

    def resolve(self) -> float | int:
        """Wait for the device and return the number. Raises TypeError when it is no scalar."""
        while self._event is not None and not self._event.query():
            time.sleep(POLL)  # waiting inside the driver may spin, and take a core from the loop
        return plain(self._value)


def _event_on(device: Any) -> Any | None:
    """An event of torch's accelerator; None for any other device, whose value is then read from a clone."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "accelerator"):
        return None
    accelerator = torch.accelerator.current_accelerator()
    return None if accelerator is None or accelerator.type != device.type else torch.Event(device)
