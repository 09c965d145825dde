"""One process. tests/ranks/test_scenarios.py has several."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossguard.torch import LossTerms, causal_lm_loss, over_ranks, tokens_per_rank

NORM = torch.tensor(3.0)


def sample() -> tuple[Tensor, Tensor]:
    """Six rows of 5 positions, with 5 to 0 counted tokens."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 7, generator=generator)
    targets = torch.randint(7, (6, 5), generator=generator)
    return logits, targets.where(torch.arange(5) < torch.tensor([[5], [4], [1], [1], [0], [0]]), -100)


def test_micro_batches_give_the_gradient_and_the_terms_of_the_whole_batch() -> None:
    logits, targets = sample()
    whole, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = causal_lm_loss(whole, targets, z_weight=0.1, label_smoothing=0.1)
    expected.loss.backward()  # type: ignore[no-untyped-call]
    num_tokens = tokens_per_rank(*targets.chunk(3))
    assert num_tokens == 11
    each = []
    for rows, row_targets in zip(parts.chunk(3), targets.chunk(3), strict=True):
        each.append(causal_lm_loss(rows, row_targets, z_weight=0.1, label_smoothing=0.1))
        (each[-1].loss * (each[-1].num_tokens / num_tokens)).backward()  # type: ignore[no-untyped-call]
    terms, norm = over_ranks(each, NORM)
    assert norm is NORM
    assert whole.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad, atol=1e-7, rtol=1e-6)
    for field in dataclasses.fields(terms):
        found, wanted = getattr(terms, field.name), getattr(expected, field.name)
        torch.testing.assert_close(found, wanted.detach(), atol=1e-7, rtol=1e-6, msg=field.name)


def test_the_terms_of_one_batch_on_one_rank_are_returned_as_they_are() -> None:
    terms = causal_lm_loss(*sample())
    assert over_ranks(terms, NORM) == (terms, NORM)


def test_terms_without_a_count_weigh_the_same() -> None:
    def terms(number: float) -> LossTerms:
        return LossTerms(*(torch.tensor(number) for _ in range(5)))

    mean, _ = over_ranks([terms(1.0), terms(2.0)], NORM)
    found = [each.item() for each in (mean.loss, mean.log_z, mean.log_z_max, mean.num_tokens)]
    assert found == [1.5, 1.5, 2.0, 2]


def test_a_nan_in_a_micro_batch_is_nan_in_the_result() -> None:
    logits, targets = sample()
    logits[0, 0, 0] = math.nan
    each = [causal_lm_loss(*part) for part in zip(logits.chunk(3), targets.chunk(3), strict=True)]
    terms, _ = over_ranks(each, NORM)
    assert all(getattr(terms, name).isnan() for name in ("loss", "cross_entropy", "log_z", "log_z_max"))


def test_the_log_z_of_a_micro_batch_without_tokens_is_not_the_maximum() -> None:
    """It is 0, and that of the others may be negative."""
    logits, targets = sample()
    each = [causal_lm_loss(*part) for part in zip((logits - 50).chunk(3), targets.chunk(3), strict=True)]
    terms, _ = over_ranks(each, NORM)
    assert terms.log_z_max < -40


@pytest.mark.parametrize("num_tensors", [1, 2])
def test_a_step_without_tokens_has_no_loss_and_no_division_by_zero(num_tensors: int) -> None:
    logits, targets = sample()
    terms = causal_lm_loss(logits, torch.full_like(targets, -100))
    assert terms.loss * (terms.num_tokens / tokens_per_rank(*[torch.full_like(targets, -100)] * num_tensors)) == 0


def test_another_index_may_be_ignored() -> None:
    assert tokens_per_rank(torch.tensor([[7, 1, 7]]), ignore_index=7) == 1


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_plain_losses_have_a_plain_mean(kind: Any) -> None:
    loss, norm = over_ranks([kind(1.0), kind(4.0)], kind(0.5))
    assert (loss.item(), norm.item()) == (2.5, 0.5)
    assert over_ranks(kind(3.0), NORM)[0].item() == 3.0
    assert math.isnan(over_ranks([kind(1.0), kind(math.nan)], NORM)[0])
    assert over_ranks([kind(1.0), kind(4.0)], NORM, num_tokens=[3, torch.tensor(1)])[0].item() == 1.75


def test_as_many_counts_as_losses_are_needed() -> None:
    with pytest.raises(ValueError, match="zip"):
        over_ranks([1.0, 2.0], 0.5, num_tokens=[1.0])
