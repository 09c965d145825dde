from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossguard.checkpoints.memory import HostCopier


class Copies(TorchFunctionMode):
    """Notes of every copy into a buffer whether it was only queued."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: list[bool] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_:
            self.queued.append(bool((kwargs or {}).get("non_blocking")))
        return func(*args, **(kwargs or {}))


def test_only_copies_from_a_device_that_is_waited_for_are_queued() -> None:
    """MPS and XPU are not waited for: what is still under way there would be written, and verified, half done."""
    with Copies() as copies:
        HostCopier().copy({"weight": torch.ones(3)})
    assert copies.queued == [False]
