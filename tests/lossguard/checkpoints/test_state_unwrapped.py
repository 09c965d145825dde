"""Compiling a model, or wrapping it for several ranks, changes nothing in its checkpoints."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from lossguard.checkpoints.state import UnwrappedModule
from lossguard.torch import Checkpoints

pytestmark = pytest.mark.slow  # torch.compile imports much


def model(value: float) -> nn.Module:
    linear = nn.Linear(2, 3)
    nn.init.constant_(linear.weight, value)
    return nn.Sequential(linear, nn.BatchNorm1d(3))


def compiled_in_part(whole: Any) -> nn.Module:
    whole[0] = compiled(whole[0])
    assert isinstance(whole, nn.Module)
    return whole


def compiled(whole: nn.Module) -> Any:
    return torch.compile(whole, backend="eager")


@pytest.fixture
def ranks_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "not at all": lambda whole: whole,
    "compiled": compiled,
    "compiled in part": compiled_in_part,
    "ddp": DistributedDataParallel,
    "compiled ddp": lambda whole: compiled(DistributedDataParallel(whole)),
    "ddp of compiled": lambda whole: DistributedDataParallel(compiled(compiled_in_part(whole))),
}


@pytest.mark.usefixtures("ranks_of_one")
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_checkpoint_of_a_model_fits_it_however_it_was_wrapped_then_and_is_now(wrapped: str, tmp_path: Path) -> None:
    first, second, third = model(1.0), WRAPPED[wrapped](model(2.0)), WRAPPED["ddp of compiled"](model(3.0))
    Checkpoints(tmp_path, blocking=True, model=first).save(5, {})
    Checkpoints(tmp_path, blocking=True, model=second).load(5)
    Checkpoints(tmp_path, blocking=True, model=second).save(6, {})
    Checkpoints(tmp_path, blocking=True, model=third).load(6)
    values = [[each.tolist() for each in found.parameters()] for found in (first, second, third)]
    assert values[0] == values[1] == values[2]


def test_the_names_are_those_without_wrappers_and_the_versions_of_the_modules_stay() -> None:
    plain, state = model(1.0).state_dict(), UnwrappedModule(compiled(compiled_in_part(model(1.0)))).state_dict()
    assert list(state) == list(plain)
    assert state._metadata == plain._metadata  # type: ignore[attr-defined]


def test_a_part_that_is_compiled_later_keeps_its_name(tmp_path: Path) -> None:
    whole = model(1.0)
    checkpoints = Checkpoints(tmp_path, blocking=True, model=whole)
    checkpoints.save(5, {})
    for parameter in compiled_in_part(whole).parameters():
        nn.init.constant_(parameter, 3.0)
    checkpoints.load(5)
    assert next(whole.parameters()).detach().eq(1.0).all()


@pytest.mark.usefixtures("ranks_of_one")
def test_a_model_that_is_sharded_over_one_rank_is_saved_in_the_background_and_restored(tmp_path: Path) -> None:
    sharded: Any = fully_shard(nn.Linear(2, 3).bfloat16())
    optimizer = KeepsFloat32(sharded.parameters())
    checkpoints = Checkpoints(tmp_path, model=sharded, optimizer=optimizer)
    train(sharded, optimizer)
    checkpoints.save(1, {})
    held = checkpoints.hold({"step": 1})
    assert checkpoints.settle(wait=True)
    assert checkpoints.durable_steps() == [1]
    weight, means = sharded.weight.full_tensor(), means_of(optimizer)
    restores: list[Callable[[], Any]] = [lambda: checkpoints.load(1), lambda: checkpoints.take_back(held)]
    for restore in restores:
        train(sharded, optimizer)
        restore()
        assert torch.equal(sharded.weight.full_tensor(), weight)
        assert all(map(torch.equal, means_of(optimizer), means))
        assert {each.dtype for each in means} == {torch.float32}


@pytest.mark.usefixtures("ranks_of_one")
def test_a_checkpoint_of_a_plain_model_fits_one_that_is_sharded_over_one_rank(tmp_path: Path) -> None:
    plain: Any = nn.Linear(2, 3)
    sharded: Any = fully_shard(nn.Linear(2, 3))
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9) for each in (plain, sharded)]
    plain(torch.ones(4, 2)).sum().backward()
    optimizers[0].step()
    Checkpoints(tmp_path, blocking=True, model=plain, optimizer=optimizers[0]).save(1, {})
    Checkpoints(tmp_path, blocking=True, model=sharded, optimizer=optimizers[1]).load(1)
    assert torch.equal(sharded.weight.full_tensor(), plain.weight)
    moments = [optimizer.state[optimizer.param_groups[0]["params"][0]]["momentum_buffer"] for optimizer in optimizers]
    assert torch.equal(moments[1].full_tensor(), moments[0])


class KeepsFloat32(torch.optim.SGD):
    """Keeps a mean of the gradients in float32, whatever the type of the weights."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for weight in self.param_groups[0]["params"]:
            mean = self.state[weight].setdefault("mean", torch.zeros_like(weight, dtype=torch.float32))
            weight.sub_(mean.lerp_(weight.grad.float(), 0.3).to(weight.dtype))


def train(sharded: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    sharded(torch.full((4, 2), 0.123, dtype=torch.bfloat16)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def means_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [state["mean"].full_tensor().clone() for state in optimizer.state.values()]
