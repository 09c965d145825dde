"""How far a step moves the weights."""

import pytest
import torch
from torch import nn

from lossguard.torch import UpdateNorm


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_it_is_the_ratio_of_the_step_to_the_weights_for_every_optimizer(make: type[torch.optim.Optimizer]) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    optimizer = make(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    updates = UpdateNorm(optimizer)
    before = torch.cat([each.detach().flatten().clone() for each in model.parameters()])
    stepped(optimizer, model)
    after = torch.cat([each.detach().flatten() for each in model.parameters()])
    torch.testing.assert_close(updates.take()["update_norm"], (after - before).norm() / before.norm())
    assert updates.take() == {}, "a step is reported once"


def test_a_part_of_a_large_model_estimates_it_and_no_more_is_kept() -> None:
    model = nn.Linear(256, 512)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    exact, estimate = UpdateNorm(optimizer), UpdateNorm(optimizer, max_elements=4096)
    assert estimate._weights().numel() <= 4096 + 2
    stepped(optimizer, model)
    assert estimate.take()["update_norm"].item() == pytest.approx(exact.take()["update_norm"].item(), rel=0.1)


def test_only_every_so_many_steps_are_measured_and_none_after_close() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = UpdateNorm(optimizer, every=3)
    measured = []
    for _ in range(6):
        stepped(optimizer, model)
        measured.append(bool(updates.take()))
    assert measured == [True, False, False, True, False, False]
    updates.close()
    stepped(optimizer, model)
    assert updates.take() == {}


def test_damaged_weights_are_news() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=float("inf"))
    updates = UpdateNorm(optimizer)
    stepped(optimizer, model)
    assert not torch.isfinite(updates.take()["update_norm"])


def test_no_value_is_read_from_the_device() -> None:
    model = nn.Linear(8, 8, device="meta")  # which has no values: reading one is an error
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = UpdateNorm(optimizer)
    stepped(optimizer, model)
    assert updates.take()["update_norm"].device.type == "meta"


def test_numbers_below_1_are_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="every=0"):
        UpdateNorm(optimizer, every=0)
