"""The loss of each source of the data."""

import pytest
import torch
from torch.nn import functional as F

from lossguard.torch import loss_by_source, token_losses


def test_it_is_the_mean_over_the_counted_tokens_of_each_source_that_has_sequences() -> None:
    losses = torch.tensor([[1.0, 2.0], [3.0, 9.0], [4.0, 6.0]])
    targets = torch.tensor([[5, 5], [5, -100], [5, 5]])
    found = loss_by_source(losses, targets, ["web", "code", "web"])
    assert {name: value.item() for name, value in found.items()} == {"source_loss/web": 3.25, "source_loss/code": 3.0}


def test_token_losses_are_those_of_the_framework_without_a_gradient() -> None:
    logits = torch.randn(2, 5, 7, requires_grad=True)
    targets = torch.randint(7, (2, 5))
    targets[0, 0] = -100
    expected = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    found = token_losses(logits, targets)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_a_source_whose_targets_are_all_ignored_is_not_a_nan() -> None:
    found = loss_by_source(torch.ones(1, 2), torch.full((1, 2), -100), ["web"])
    assert found["source_loss/web"].item() == 0.0


def test_a_loss_that_is_not_finite_is_news_of_its_source_alone() -> None:
    losses = torch.tensor([[1.0], [torch.inf]])
    found = loss_by_source(losses, torch.zeros(2, 1, dtype=torch.int64), ["web", "code"])
    assert (found["source_loss/web"].item(), found["source_loss/code"].item()) == (1.0, torch.inf)


def test_no_value_is_read_from_the_device() -> None:
    losses = torch.empty(2, 3, device="meta")
    found = loss_by_source(losses, torch.zeros(2, 3, dtype=torch.int64, device="meta"), ["web", "code"])
    assert {value.device.type for value in found.values()} == {"meta"}


def test_a_name_is_needed_for_each_sequence() -> None:
    with pytest.raises(ValueError, match="1 names for 2 sequences"):
        loss_by_source(torch.ones(2, 1), torch.zeros(2, 1), ["web"])
