"""States in host memory: the newest few, exact, and independent of what is trained afterwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lossguard.checkpoints.memory import HostCopier, MemoryCheckpoints


def trained_once() -> tuple[nn.Module, torch.optim.AdamW]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.AdamW) -> None:
    model(torch.ones(3)).sum().backward()
    optimizer.step()


def states(model: nn.Module, optimizer: torch.optim.AdamW, **more: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": more}


def test_the_oldest_state_makes_room_and_the_same_step_replaces_itself() -> None:
    memory = MemoryCheckpoints(2)
    for number in (10, 20, 30, 30):
        memory.save(number, {"run": {"step": number}})
    assert memory.steps() == [20, 30]
    assert memory.load(20, {}) == {"run": {"step": 20}}


def test_training_on_after_a_load_changes_nothing_that_is_remembered() -> None:
    model, optimizer = trained_once()
    step(model, optimizer)
    memory = MemoryCheckpoints(1)
    memory.save(1, states(model, optimizer))
    saved = [value.clone() for value in memory.load(1, {})["model"].values()]
    for _ in range(2):
        loaded = memory.load(1, {})
        model.load_state_dict(loaded["model"])
        optimizer.load_state_dict(loaded["optimizer"])  # it keeps the tensors that it is given
        for each, then in zip(model.state_dict().values(), saved, strict=True):
            assert torch.equal(each, then)
        assert all(int(state["step"]) == 1 for state in optimizer.state_dict()["state"].values())
        step(model, optimizer)


def test_states_of_later_steps_can_be_discarded_and_their_memory_is_used_again() -> None:
    model, optimizer = trained_once()
    memory = MemoryCheckpoints(3)
    for number in range(3):
        memory.save(number, states(model, optimizer))
    buffers = {value.data_ptr() for slot in memory._slots for value in slot.states["model"].values()}
    memory.discard_after(0)
    assert memory.steps() == [0]
    for number in (1, 2):
        memory.save(number, states(model, optimizer))
    assert {value.data_ptr() for slot in memory._slots for value in slot.states["model"].values()} == buffers


def test_a_copy_that_fails_leaves_no_state_behind() -> None:
    class Unreadable(dict[str, Any]):
        def items(self) -> Any:
            raise MemoryError

    memory = MemoryCheckpoints(1)
    memory.save(1, {"run": {}})
    with pytest.raises(MemoryError):
        memory.save(2, {"run": Unreadable()})
    assert memory.steps() == []


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


def test_copies_are_in_host_memory_whatever_the_default_device_is() -> None:
    with torch.device("meta"):
        copied = HostCopier().copy({"weight": torch.ones(2, device="cpu")})
    assert torch.equal(copied["weight"], torch.ones(2))
