import random
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lossguard.checkpoints.state import differences, digest
from lossguard.torch import Checkpoints


def test_generators_of_python_numpy_and_torch_come_back(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]

    random.gauss(0, 1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {})
    checkpoints.settle(wait=True)
    first = draw()
    checkpoints.load(0)
    assert draw() == first


def test_a_state_is_described_value_by_value() -> None:
    state = OrderedDict(w=torch.zeros(2, 3), groups=[{"lr": 0.1, "betas": (0.9, 0.95)}], none=None)
    found = digest(state)
    assert list(found) == ["w", "groups.0.lr", "groups.0.betas.0", "groups.0.betas.1", "none"]
    assert found["w"].startswith("float32[2x3] ")
    assert found["groups.0.lr"] == "0.1"
    assert differences(found, digest(state)) == []


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.ones(3, dtype=torch.bfloat16),
        torch.arange(6).view(2, 3).T,
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.eye(3).to_sparse(),
        torch.tensor([1 + 2j]).conj(),
    ],
)
def test_every_kind_of_tensor_has_a_digest_that_follows_its_content(tensor: torch.Tensor) -> None:
    copied = digest({"x": tensor.clone()})
    assert copied == digest({"x": tensor})
    if tensor.numel():
        assert copied != digest({"x": tensor.to_dense() * 0})


def test_the_sign_of_zero_and_the_kind_of_nan_count() -> None:
    for one, other in [(0.0, -0.0), (float("nan"), -float("nan"))]:
        assert digest({"x": torch.tensor(one)}) != digest({"x": torch.tensor(other)})


@pytest.mark.parametrize(
    ("now", "phrase"),
    [
        ({"lr": 0.2}, "lr was 0.1 and is 0.2"),
        ({}, "lr was 0.1 and is absent"),
        ({"lr": 0.1, "eps": 1}, "eps was absent and is 1"),
    ],
)
def test_what_differs_is_named(now: dict[str, Any], phrase: str) -> None:
    assert differences(digest({"lr": 0.1}), digest(now)) == [phrase]


class KeepsFloat32(torch.optim.Optimizer):
    """Mean of the gradients in float32, whatever the type of the weights: so does Adafactor."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> Any:
        for parameter in self.param_groups[0]["params"]:
            mean = self.state[parameter].setdefault("mean", torch.zeros(parameter.shape))
            parameter.data -= (mean.lerp_(parameter.grad.float(), 0.3)).to(parameter.dtype)


@pytest.mark.parametrize("memory", [0, 2])
def test_an_optimizer_gets_its_numbers_back_in_the_type_that_they_had(tmp_path: Path, memory: int) -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = KeepsFloat32([weight])
    checkpoints = Checkpoints(tmp_path, optimizer=optimizer, blocking=True, memory=memory)
    for step in range(2):
        weight.grad = torch.full((3,), 0.123, dtype=torch.bfloat16)
        optimizer.step()
        checkpoints.save(step, {})
    saved = optimizer.state[weight]["mean"].clone()
    optimizer.step()
    checkpoints.load(1)
    restored = optimizer.state[weight]["mean"]
    assert (restored.dtype, restored.equal(saved)) == (torch.float32, True)
    optimizer.step()
    checkpoints.load(1)
    assert optimizer.state[weight]["mean"].equal(saved), "what was restored is no part of the checkpoint"
