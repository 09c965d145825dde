import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lossguard.torch import LossTerms, causal_lm_loss
from lossguard.torch.loss import CHUNK_ELEMENTS


def reference(logits: Tensor, targets: Tensor, z_weight: float, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """loss, log Z of the counted rows, cross-entropy: by the definitions, in float64."""
    logits, targets = logits.flatten(0, 1).double(), targets.flatten()
    log_z = torch.logsumexp(logits, -1)[targets != -100]
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing) + z_weight * log_z.square().mean()
    return loss, log_z, F.cross_entropy(logits, targets)


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
    loss, log_z, cross_entropy = reference(exact, targets, z_weight, smoothing)
    (2.0 * terms.loss).backward()  # type: ignore[no-untyped-call]
    (2.0 * loss).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)
    for value, expected in (
        (terms.loss, loss),
        (terms.cross_entropy, cross_entropy),
        (terms.z_loss, z_weight * log_z.square().mean()),
        (terms.log_z, log_z.mean()),
        (terms.log_z_max, log_z.max()),
    ):
        torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5, check_dtype=False)


def test_the_gradient_is_right_to_double_precision() -> None:
    logits, targets = sample(torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: causal_lm_loss(x, targets, z_weight=0.1, label_smoothing=0.1).loss, logits.requires_grad_()
    )


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = sample()
    whole = causal_lm_loss(logits, targets, z_weight=0.1)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", 120)
    parts = causal_lm_loss(logits, targets, z_weight=0.1)
    assert (whole.loss, whole.log_z, whole.log_z_max) == (parts.loss, parts.log_z, parts.log_z_max)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, targets = sample(dtype)
    ours, exact = logits.clone().requires_grad_(), logits.float().requires_grad_()
    terms, full = (causal_lm_loss(each, targets, z_weight=1e-4) for each in (ours, exact))
    assert terms.loss.dtype is torch.float32
    assert terms.loss == full.loss
    terms.loss.backward()  # type: ignore[no-untyped-call]
    full.loss.backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert exact.grad is not None
    assert ours.grad.dtype is dtype
    torch.testing.assert_close(ours.grad, exact.grad.to(dtype), atol=1e-5, rtol=1e-2)


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


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 7, 50\) do not match targets \(2, 6\)"):
        causal_lm_loss(torch.zeros(2, 7, 50), torch.zeros(2, 6, dtype=torch.long))
