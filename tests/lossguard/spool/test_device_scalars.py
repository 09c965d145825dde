import types
from typing import Any

import pytest
import torch

from lossguard.spool.device_scalars import copied


class OnDevice(torch.Tensor):
    """A tensor of torch that says that it lies on a device, and counts the copies to the host."""

    copies = 0

    @property
    def device(self) -> Any:  # type: ignore[override]
        return DEVICE

    def to(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("there is no accelerator: a clone is read")

    def clone(self, **options: Any) -> Any:
        OnDevice.copies += 1
        return self.as_subclass(torch.Tensor).clone()


DEVICE = torch.device("meta")


def on_a_device(value: float, dtype: torch.dtype = torch.float32) -> Any:
    return torch.tensor(value, dtype=dtype).as_subclass(OnDevice)


def test_the_scalars_of_a_step_share_one_copy_for_each_type() -> None:
    OnDevice.copies = 0
    values = {f"layer_grad_norm/{number}": on_a_device(number + 0.5) for number in range(12)}
    values |= {"tokens": on_a_device(2**40 + 1, torch.int64)}
    pending, problems = copied(values)
    assert OnDevice.copies == 2
    assert not problems
    numbers = {name: each.resolve() for name, each in pending.items()}
    assert numbers == {f"layer_grad_norm/{number}": number + 0.5 for number in range(12)} | {"tokens": 2.0**40 + 1}


def test_what_is_no_scalar_costs_no_other_value() -> None:
    vector = torch.ones(2).as_subclass(OnDevice)
    pending, _ = copied({"loss": on_a_device(1.0), "grad_norm": on_a_device(2.0), "vector": vector})
    assert (pending["loss"].resolve(), pending["grad_norm"].resolve()) == (1.0, 2.0)
    with pytest.raises(TypeError, match="is not a scalar"):
        pending["vector"].resolve()
    sharded = types.SimpleNamespace(full_tensor=None, device=DEVICE)
    pending, problems = copied({"loss": on_a_device(1.0), "grad_norm": sharded})
    assert list(pending) == ["loss"]
    assert "full_tensor" in str(problems["grad_norm"])
