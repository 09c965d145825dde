import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lossguard.torch import LossTerms, causal_lm_loss, loss_by_source, token_losses
from lossguard.torch.loss import CHUNK_ELEMENTS


def reference(logits: Tensor, targets: Tensor, z_weight: float, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """loss, log Z of the counted rows, cross-entropy: by the definitions, in float64."""
    logits, targets = logits.flatten(0, 1).double(), targets.flatten()
    log_z = torch.logsumexp(logits, -1)[targets != -100]
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing) + z_weight * log_z.square().mean()
    return loss, log_z, F.cross_entropy(logits, targets)


def assert_terms(
    terms: LossTerms, loss: Tensor, log_z: Tensor, cross_entropy: Tensor, *, z_weight: float, within: float
) -> None:
    """All terms are those that `reference` gives."""
    for value, expected in (
        (terms.loss, loss),
        (terms.cross_entropy, cross_entropy),
        (terms.z_loss, z_weight * log_z.square().mean()),
        (terms.log_z, log_z.mean()),
        (terms.log_z_max, log_z.max()),
    ):
        torch.testing.assert_close(value.double(), expected, atol=within, rtol=within, check_dtype=False)


def sample(dtype: torch.dtype = torch.float32, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    targets = torch.randint(50, (2, 7))
    targets[0, 2] = targets[1, 6] = -100
    return (scale * torch.randn(2, 7, 50)).to(dtype), targets


@pytest.mark.parametrize(("z_weight", "smoothing"), [*itertools.product([0.0, 1e-4, 0.1], [0.0, 0.1, 0.3])])
def test_values_and_gradients_are_those_of_the_definition_in_float64(z_weight: float, smoothing: float) -> None:
    logits, targets = sample()
    ours, exact = logits.clone().requires_grad_(), logits.clone().double().requires_grad_()
    terms = causal_lm_loss(ours, targets, z_weight=z_weight, label_smoothing=smoothing)
    expected = reference(exact, targets, z_weight, smoothing)
    (2.0 * terms.loss).backward()  # type: ignore[no-untyped-call]
    (2.0 * expected[0]).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)
    assert_terms(terms, *expected, z_weight=z_weight, within=1e-5)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = sample()
    whole = causal_lm_loss(logits, targets, z_weight=0.1)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", 120)
    parts = causal_lm_loss(logits, targets, z_weight=0.1)
    assert (whole.loss, whole.log_z, whole.log_z_max) == (parts.loss, parts.log_z, parts.log_z_max)


DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EPSILON = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Relative error of a gradient that is computed in float32 and rounded once."""


def test_only_the_loss_is_differentiable() -> None:
    logits, targets = sample()
    terms = causal_lm_loss(logits.requires_grad_(), targets)
    assert terms.loss.requires_grad
    assert not any(t.requires_grad for t in (terms.cross_entropy, terms.z_loss, terms.log_z, terms.log_z_max))
    assert all(getattr(terms, name).dim() == 0 for name in LossTerms.__slots__)


def test_when_no_token_counts_every_term_and_gradient_is_zero() -> None:
    logits, targets = sample()
    logits.requires_grad_()
    terms = causal_lm_loss(logits, torch.full_like(targets, -100), z_weight=1.0, label_smoothing=0.1)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert all(getattr(terms, name) == 0 for name in LossTerms.__slots__)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_another_index_may_be_ignored() -> None:
    logits, targets = sample()
    assert causal_lm_loss(logits, targets.where(targets != -100, 7), ignore_index=7).loss.isfinite()


def test_a_nan_logit_makes_the_loss_nan_and_an_ignored_one_does_not() -> None:
    logits, targets = sample()
    logits[0, 2] = math.nan
    assert causal_lm_loss(logits, targets, z_weight=1e-4).loss.isfinite()
    logits[0, 0, 0] = math.nan
    assert causal_lm_loss(logits, targets).loss.isnan()


def test_huge_logits_stay_exact() -> None:
    logits, targets = sample(scale=1e4)
    terms = causal_lm_loss(logits, targets)
    torch.testing.assert_close(terms.cross_entropy, F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


def gradients_by_the_definition(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, ...]:
    """Ours, and that of float64, of the loss with a z-loss of 0.1."""
    ours, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    causal_lm_loss(ours, targets, z_weight=0.1, label_smoothing=smoothing).loss.backward()  # type: ignore[no-untyped-call]
    reference(exact, targets, 0.1, smoothing)[0].backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert exact.grad is not None
    assert ours.grad.dtype is logits.dtype
    return ours.grad, exact.grad


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_is_rounded_once_even_at_a_target_that_is_nearly_certain(
    dtype: torch.dtype, smoothing: float
) -> None:
    """Its gradient is small, a difference of two large terms."""
    logits, targets = sample(dtype)
    logits = logits.scatter_add(2, targets.clamp(min=0).unsqueeze(2), torch.full((2, 7, 1), 14.0, dtype=dtype))
    ours, exact = gradients_by_the_definition(logits, targets, smoothing)
    torch.testing.assert_close(ours.double(), exact, atol=1e-7, rtol=EPSILON[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_target_logit_of_minus_infinity_has_an_infinite_loss_and_a_finite_gradient(dtype: torch.dtype) -> None:
    """As torch's cross-entropy has it; log Z is that of the other tokens."""
    logits, targets = sample(dtype)
    logits[0, 0, targets[0, 0]] = logits[1, 3, 0] = -math.inf
    terms, (_, log_z, _) = causal_lm_loss(logits, targets, z_weight=0.1), reference(logits, targets, 0.1, 0.0)
    assert terms.loss == terms.cross_entropy == math.inf
    torch.testing.assert_close(terms.log_z.double(), log_z.mean(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(terms.z_loss.double(), 0.1 * log_z.square().mean(), atol=1e-6, rtol=1e-6)
    ours, exact = gradients_by_the_definition(logits, targets)
    assert exact.isfinite().all()
    torch.testing.assert_close(ours.double(), exact, atol=1e-7, rtol=EPSILON[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_target_with_a_huge_negative_logit_does_not_change_log_z(dtype: torch.dtype) -> None:
    logits, targets = sample(dtype)
    huge = -6e4 if dtype is torch.float16 else -3e7
    logits = logits.scatter(2, targets.clamp(min=0).unsqueeze(2), torch.full((2, 7, 1), huge, dtype=dtype))
    terms = causal_lm_loss(logits, targets, z_weight=0.1)
    assert terms.loss.dtype is torch.float32
    assert terms.num_tokens == 12
    assert_terms(terms, *reference(logits, targets, 0.1, 0.0), z_weight=0.1, within=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_penalty_on_gradients_is_that_of_the_definition_in_float64(dtype: torch.dtype, smoothing: float) -> None:
    """The gradient in the penalty and both parts of the sum are rounded to `dtype`, so the bound is one on the norm."""
    logits, targets = sample(dtype)

    def with_penalty(x: Tensor, loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (of_both,) = torch.autograd.grad(loss + 10 * gradient.double().square().sum(), x)
        return of_both

    ours, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    found = with_penalty(ours, causal_lm_loss(ours, targets, z_weight=0.1, label_smoothing=smoothing).loss)
    expected = with_penalty(exact, reference(exact, targets, 0.1, smoothing)[0])
    assert (found.double() - expected).norm() < EPSILON[dtype] * expected.norm()


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_second_and_third_derivatives_are_right_to_double_precision(smoothing: float) -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([1, -100, 3])

    def loss(x: Tensor) -> Tensor:
        return causal_lm_loss(x, targets, z_weight=0.1, label_smoothing=smoothing).loss

    def penalty(x: Tensor) -> Tensor:
        return torch.autograd.grad(loss(x), x, create_graph=True)[0].square().sum()

    assert torch.autograd.gradgradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(penalty, logits)


def test_arguments_that_cannot_be_used_are_refused_in_one_sentence() -> None:
    for smoothing in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"label_smoothing = {smoothing} cannot be used: .* between 0 and 1"):
            causal_lm_loss(*sample(), label_smoothing=smoothing)
    with pytest.raises(ValueError, match=r"\(2, 7, 50\) do not match targets \(2, 6\)"):
        causal_lm_loss(torch.zeros(2, 7, 50), torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="1 names for 2 sequences"):
        loss_by_source(torch.ones(2, 1), torch.zeros(2, 1), ["web"])


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
