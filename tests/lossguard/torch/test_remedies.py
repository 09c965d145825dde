"""The ready remedies, on a tiny model."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from lossguard import Guard
from lossguard.torch import (
    Checkpoints,
    clip_remedy,
    learning_rate_remedy,
    moments_remedy,
    reset_damaged_moments,
    z_loss_remedy,
)
from tests.lossguard.scripted import Indices, Memory, ScriptedRun, rollback


def guard_with(*remedies: str, at: int = 5, rewind_to: int = 2, **fields: Any) -> Guard:
    run = ScriptedRun({at: rollback(rewind_to=rewind_to, remedies=remedies, **fields)})
    return Guard(run, checkpoints=Memory([]), every=2)


def test_the_learning_rate_is_lower_for_a_while_and_rises_back_in_a_straight_line() -> None:
    guard = guard_with("learning_rate", lr_scale=0.8)
    learning_rate_remedy(guard, factor=0.5, lasts=2, rewarm=3)
    scales = [guard.lr_scale for _ in guard.steps(Indices(), 9)]
    assert scales[:4] == [1.0] * 4
    assert [scale / 0.8 for scale in scales[4:]] == pytest.approx([0.5, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0])


def test_the_learning_rate_of_a_resumed_run_is_where_it_was_on_its_way_back() -> None:
    def of(guard: Guard, until: int) -> list[float]:
        learning_rate_remedy(guard, factor=0.5, lasts=2, rewarm=3)
        return [guard.lr_scale for _ in guard.steps(Indices(), until)]

    first = guard_with("learning_rate")
    of(first, 5)
    assert of(Guard(ScriptedRun(), checkpoints=first.checkpoints), 8) == pytest.approx([0.75, 0.875, 1.0])


@pytest.mark.parametrize("bad", [{"factor": 0.0}, {"factor": 1.0}, {"rewarm": -1}])
def test_a_learning_rate_that_is_not_lower_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        learning_rate_remedy(guard_with(), **bad)


@pytest.mark.parametrize(
    ("register", "normal", "default"),
    [(z_loss_remedy, 1e-4, 1e-3), (z_loss_remedy, 0.0, 1e-4), (clip_remedy, 1.0, 0.3), (clip_remedy, math.inf, 1.0)],
)
def test_a_knob_has_its_other_value_while_the_remedy_is_in_effect(register: Any, normal: float, default: float) -> None:
    name = "clip" if register is clip_remedy else "z_loss"
    guard = guard_with(name)
    knob = register(guard, normal, lasts=2)
    assert [knob.value for _ in guard.steps(Indices(), 6)] == [*[normal] * 4, *[default] * 2, *[normal] * 2]


def trained(steps: int = 20, *, beta2: float = 0.999, scale: float = 1.0) -> tuple[nn.Linear, torch.optim.AdamW]:
    """A linear model after some steps of AdamW on gradients of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, beta2))
    for step in range(steps):
        for parameter in model.parameters():
            size = scale * 10.0 ** float(torch.randint(-4, 4, (), generator=generator))
            parameter.grad = size * torch.randn(parameter.shape, generator=generator) * (step % 7 != 3)
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("beta2", [0.95, 0.999])
@pytest.mark.parametrize("scale", [1e-19, 1e-12, 1.0, 1e12])
def test_moments_that_gradients_have_made_are_left_alone(beta2: float, scale: float) -> None:
    for steps in (1, 2, 12, 40):
        _, optimizer = trained(steps, beta2=beta2, scale=scale)
        assert reset_damaged_moments(optimizer) == 0


@pytest.mark.parametrize(
    ("moment", "factor"),
    [
        ("exp_avg", 2.0**64),
        ("exp_avg", 2.0**16),
        ("exp_avg_sq", 2.0**64),  # the weight would stand still for thousands of steps
        ("exp_avg_sq", 2.0**-16),
        ("exp_avg_sq", 2.0**-64),
    ],
)
def test_a_flipped_bit_of_an_exponent_is_found_and_only_that_parameter_is_reset(moment: str, factor: float) -> None:
    model, optimizer = trained()
    weight, bias = (optimizer.state[parameter] for parameter in (model.weight, model.bias))
    before = {name: value.clone() for name, value in bias.items()}
    weight[moment][1, 2] *= factor
    assert reset_damaged_moments(optimizer) == 1
    assert all(not value.any() for value in weight.values())
    assert all(torch.equal(bias[name], before[name]) for name in before)
    assert reset_damaged_moments(optimizer) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_second_moment_that_is_not_finite_or_negative_is_found(value: float) -> None:
    model, optimizer = trained()
    optimizer.state[model.bias]["exp_avg_sq"][0] = value
    assert reset_damaged_moments(optimizer) == 1


def test_moments_of_an_optimizer_with_other_betas_are_judged_by_whether_they_are_finite() -> None:
    model, optimizer = trained()
    optimizer.param_groups[0]["betas"] = (0.98, 0.92, 0.99)  # as Adan's
    assert reset_damaged_moments(optimizer) == 0
    optimizer.state[model.bias]["exp_avg"][0] = math.nan
    assert reset_damaged_moments(optimizer) == 1


def test_a_reset_that_fails_has_changed_nothing() -> None:
    model, optimizer = trained()
    optimizer.add_param_group({"params": [other := nn.Parameter(torch.zeros(2))]})
    optimizer.state[other] = {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(3)}
    optimizer.state[model.bias]["exp_avg"][0] = math.nan
    with pytest.raises(RuntimeError, match="size"):
        reset_damaged_moments(optimizer)
    assert optimizer.state[model.bias]["exp_avg"][0].isnan()


def test_a_momentum_of_sgd_is_judged_by_whether_it_is_finite() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert reset_damaged_moments(optimizer) == 0
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert reset_damaged_moments(optimizer) == 0
    optimizer.state[model.weight]["momentum_buffer"][0, 0] = math.nan
    assert reset_damaged_moments(optimizer) == 1


def test_moments_are_reset_after_the_restore_and_not_again_by_a_process_that_resumes_later() -> None:
    """Here the damage is in the checkpoint that the rollback restores."""
    model, optimizer = trained()
    checkpoints = Memory([])

    def run(orders: Any, until: int) -> list[bool]:
        guard = Guard(ScriptedRun(orders), checkpoints=checkpoints, every=2)
        moments_remedy(guard, optimizer)
        seen = []
        for step, _ in guard.steps(Indices(), until):
            seen.append(bool(optimizer.state[model.weight]["exp_avg"].any()))
            if step == 1:
                optimizer.state[model.weight]["exp_avg"][0, 0] = math.nan
        return seen

    assert run({5: rollback(rewind_to=2, remedies=("moments",))}, 4) == [True, True, True, True, False, False]
    optimizer.state[model.weight]["exp_avg"][0, 0] = math.inf
    assert run({}, 6) == [True, True]


@pytest.mark.parametrize("kind", [CosineAnnealingLR, OneCycleLR])
def test_the_recipe_of_the_docs_scales_the_rates_of_a_scheduler_and_not_its_schedule(kind: Any, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "loop.md").read_text()
    recipe = re.search(r"### `guard.lr_scale` with a scheduler.*?```python\n(.*?)```", page, re.DOTALL)
    assert recipe is not None

    def used(name: str, orders: dict[int, Any]) -> list[float]:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        last = {"T_max": 12} if kind is CosineAnnealingLR else {"max_lr": 1.0, "total_steps": 13}
        objects: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": kind(optimizer, **last)}
        rates: list[float] = []
        optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
        guard = Guard(ScriptedRun(orders), checkpoints=Checkpoints(tmp_path / name, **objects), every=2)
        exec(recipe[1].replace("10_000", "9"), objects | {"guard": guard, "batches": torch.randn(4, 3, 2)})
        return rates

    plain = used("plain", {})
    assert used("scaled", {7: rollback(rewind_to=4, lr_scale=0.5)}) == [*plain[:6], *(rate * 0.5 for rate in plain[4:])]
