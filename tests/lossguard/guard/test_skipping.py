import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from lossguard.guard import skipping
from lossguard.guard.skipping import FoundInf, Masked, OnHost, Skipping, skipping_for

SKIP, TAKE = torch.tensor(1.0), torch.tensor(0.0)


class Lion(Optimizer):
    """Chen et al. 2023 (arXiv:2302.06675), with a new momentum tensor in every step."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    state = self.state[each]
                    momentum = state.get("momentum", torch.zeros_like(each))
                    each.mul_(1 - 0.1 * group["lr"]).sub_((0.9 * momentum + 0.1 * each.grad).sign() * group["lr"])
                    state["momentum"] = 0.99 * momentum + 0.01 * each.grad


class CountingInItsGroup(Lion):
    """Its counter is a number of its group, as Prodigy's is."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1


Make = Callable[[Iterable[Tensor]], Optimizer]
FUSED: dict[str, Make] = {
    "AdamW": lambda params: AdamW(params, lr=0.1, fused=True),
    "AdamW, amsgrad": lambda params: AdamW(params, lr=0.1, fused=True, amsgrad=True),
    "Adam": lambda params: Adam(params, lr=0.1, fused=True),
    "SGD": lambda params: SGD(params, lr=0.1, fused=True),
    "SGD, momentum": lambda params: SGD(params, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, fused=True),
    "Adagrad": lambda params: Adagrad(params, lr=0.1, fused=True),
}
OTHERS: dict[str, Make] = {
    "AdamW, foreach": lambda params: AdamW(params, lr=0.1, foreach=True),
    "SGD, momentum": lambda params: SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adagrad": lambda params: Adagrad(params, lr=0.1),
    "RMSprop": lambda params: RMSprop(params, lr=0.1, momentum=0.9, centered=True),
    "NAdam": lambda params: NAdam(params, lr=0.1),
    "Lion": lambda params: Lion(params, lr=0.1),
    "Lion with a counter": lambda params: CountingInItsGroup(params, lr=0.1),
}
if hasattr(torch.optim, "Muon"):
    OTHERS["Muon"] = lambda params: torch.optim.Muon([each for each in params if each.dim() == 2], lr=0.1)
CASES = [(make, FoundInf) for make in FUSED.values()] + [
    (make, way) for make in OTHERS.values() for way in (OnHost, Masked)
]


def _skipping(optimizer: Optimizer, way: type) -> Skipping:
    return Masked(optimizer, optimizer, lambda text: None) if way is Masked else way(optimizer, optimizer)


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))


def _train(make: Make, way: type, verdicts: list[bool]) -> tuple[nn.Module, Optimizer]:
    """A step for each verdict; the gradients of skipped ones are NaN, those of the others are always the same."""
    model = _model()
    optimizer = make(list(model.parameters()))
    each, number = _skipping(optimizer, way), 0
    for skip in verdicts:
        torch.manual_seed(number)
        number += not skip
        optimizer.zero_grad()
        (model(torch.randn(3, 4)).square().mean() * (math.nan if skip else 1.0)).backward()
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        each.step(SKIP if skip else TAKE, None)
        if skip:
            _assert_same(model.state_dict(), before[0])
            if way is not FoundInf or before[1]["state"]:  # a fused step makes the state that its first one would
                _assert_same(optimizer.state_dict(), before[1])
    return model, optimizer


def _assert_same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "way"), CASES)
@pytest.mark.parametrize("first", [True, False])
def test_a_skipped_update_changes_nothing_to_the_last_bit(make: Make, way: type, first: bool) -> None:
    verdicts = [first, False, False, True, True, False, True, False]
    model, optimizer = _train(make, way, verdicts)
    plain, plain_optimizer = _train(make, way, [skip for skip in verdicts if not skip])
    _assert_same(model.state_dict(), plain.state_dict())
    _assert_same(optimizer.state_dict(), plain_optimizer.state_dict())


@pytest.mark.parametrize("make", FUSED.values())
def test_steps_that_are_taken_are_those_of_the_plain_optimizer(make: Make) -> None:
    gated, _ = _train(make, FoundInf, [False] * 4)
    model = _model()
    optimizer = make(list(model.parameters()))
    for number in range(4):
        torch.manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
    _assert_same(gated.state_dict(), model.state_dict())


def test_fused_optimizers_of_torch_take_the_verdict_and_others_on_the_cpu_read_it() -> None:
    params = list(_model().parameters())
    for make in FUSED.values():
        assert isinstance(skipping_for(make(params), print), FoundInf)
    for make in OTHERS.values():
        assert isinstance(skipping_for(make(params), print), OnHost)


def test_a_parameter_whose_gradient_comes_later_is_skipped_exactly_too() -> None:
    one, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lion([one, late], lr=0.1)
    each = _skipping(optimizer, Masked)
    one.grad = torch.ones(2)
    each.step(TAKE, None)
    late.grad = torch.full((2,), math.nan)
    before = copy.deepcopy(optimizer.state_dict())
    each.step(SKIP, None)
    _assert_same(optimizer.state_dict(), before)
    assert torch.equal(late, torch.ones(2))


@pytest.mark.parametrize("way", [Masked, FoundInf])
def test_after_a_rollback_to_before_the_first_step_the_state_is_made_anew(way: type) -> None:
    model, fused = _model(), way is FoundInf
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    start = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    each = _skipping(optimizer, way)

    def trained(skip: Tensor) -> dict[str, Any]:
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        each.step(skip, None)
        return copy.deepcopy(model.state_dict())

    first = trained(TAKE)
    model.load_state_dict(start[0])
    optimizer.load_state_dict(start[1])
    each.forget()
    _assert_same(trained(SKIP), start[0])
    _assert_same(trained(TAKE), first)


def test_an_optimizer_with_a_counter_on_the_host_says_once_that_it_waits() -> None:
    texts: list[str] = []
    model = _model()
    optimizer = CountingInItsGroup(model.parameters(), lr=0.1)
    each = Masked(optimizer, optimizer, texts.append)
    for _ in range(3):
        model(torch.ones(1, 4)).sum().backward()
        each.step(TAKE, None)
    assert len(texts) == 1
    assert "CountingInItsGroup has state in host memory" in texts[0]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("unscaled", [True, False])
def test_with_a_grad_scaler_either_can_skip(fused: bool, unscaled: bool) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=0.1, fused=fused)
    each, scaler = skipping_for(optimizer, print), torch.amp.GradScaler("cpu", init_scale=4.0)
    scales, weights = [], []
    for factor, skip in ((1.0, TAKE), (1.0, SKIP), (math.inf, TAKE), (1.0, TAKE)):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * factor).backward()  # type: ignore[no-untyped-call]
        if unscaled:
            scaler.unscale_(optimizer)
        each.step(skip, scaler)
        scaler.update()
        scales.append(scaler.get_scale())
        weights.append(weight.detach().clone())
    assert scales == [4.0, 4.0, 2.0, 2.0]  # the gate's verdict is not that of an overflow
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_optimizer_within_a_wrapper_takes_the_verdict(enabled: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=enabled)

    class Wrapper:
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None:
            scaler.scale(torch.ones(()))
            scaler.step(self.optimizer)
            scaler.update()

    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    each = skipping_for(Wrapper(AdamW([weight], fused=True)), print)  # type: ignore[arg-type]
    each.step(SKIP, None)
    assert torch.equal(weight, torch.ones(2))
    each.step(TAKE, None)
    assert not torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize("unscaled", [False, True])
def test_the_scaler_within_a_wrapper_goes_on_where_the_step_is_not_called(unscaled: bool) -> None:
    """The wrapper is like that of accelerate in float16, where clipping has unscaled the gradients before."""

    class Wrapper:
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer, self.scaler = optimizer, torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)

        def step(self) -> None:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    weight = nn.Parameter(torch.ones(2))
    wrapper = Wrapper(RMSprop([weight], lr=0.1))
    each = OnHost(wrapper, wrapper.optimizer)  # type: ignore[arg-type]
    scales, weights = [], []
    for skip, factor in ((TAKE, 1.0), (SKIP, 1.0), (SKIP, math.inf), (TAKE, 1.0)):
        weight.grad = None
        wrapper.scaler.scale(weight.sum() * factor).backward()  # type: ignore[no-untyped-call]
        if unscaled:
            wrapper.scaler.unscale_(wrapper.optimizer)
        each.step(skip, None)
        scales.append(wrapper.scaler.get_scale())
        weights.append(weight.detach().clone())
    assert scales == [4.0, 4.0, 2.0, 2.0]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[2], weights[3])


@pytest.mark.parametrize("given", [object(), nn.Linear(1, 1)])
def test_what_is_no_optimizer_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="is not a torch optimizer with parameters"):
        skipping.skipping_for(given, print)
