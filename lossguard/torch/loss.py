"""Cross-entropy, z-loss and log-Z statistics of a causal language model in one pass over the logits.

Shapes: B batch, T positions, V vocabulary, N = B * T rows, C rows of one chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = {"cpu": 1 << 22}
"""Elements of a chunk of rows, by device type: on a CPU, a chunk fits into its cache."""
DEFAULT_CHUNK_ELEMENTS = 1 << 26
"""Enough to keep any other device busy."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """0-dim tensors, in float32 at least."""

    loss: Tensor
    """The loss to call backward on: cross-entropy (smoothed if requested) + z_loss."""
    cross_entropy: Tensor
    """Mean nats per counted token, without smoothing and z-loss. Detached, like all terms below."""
    z_loss: Tensor
    """z_weight * mean(log Z ** 2)."""
    log_z: Tensor
    """Mean log partition function over counted tokens."""
    log_z_max: Tensor


def causal_lm_loss(
    logits_BTV: Tensor,
    targets_BT: Tensor,
    *,
    z_weight: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> LossTerms:
    """Next-token loss over all positions whose target is not `ignore_index`; all terms are 0 when there is none.

    log Z costs nothing extra: it is logit[target] - log_softmax[target]. The z-loss z_weight * log(Z)^2 keeps Z near 1
    (PaLM, Chowdhery et al. 2022, section 5, with z_weight 1e-4). Reduced precision is computed in float32. Raises
    ValueError when the shapes do not match.
    """
    if logits_BTV.shape[:-1] != targets_BT.shape:
        raise ValueError(f"logits {tuple(logits_BTV.shape)} do not match targets {tuple(targets_BT.shape)}")
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    targets_N = targets_BT.reshape(-1)
    terms = _CausalLoss.apply(  # type: ignore[no-untyped-call]
        logits_NV, targets_N, z_weight, label_smoothing, ignore_index
    )
    return LossTerms(*terms)


class _CausalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, targets_N: Tensor, z_weight: float, smoothing: float, ignore_index: int
    ) -> tuple[Tensor, ...]:
        counted_N = targets_N != ignore_index
        safe_N = targets_N.where(counted_N, 0)
        log_z_N, nll_N, uniform_N = _row_terms(logits_NV, safe_N, smoothing)
        count = counted_N.sum().clamp(min=1)
        log_z_N = log_z_N.where(counted_N, 0.0)

        def mean(values_N: Tensor) -> Tensor:
            return values_N.where(counted_N, 0.0).sum() / count

        cross_entropy, z_loss, log_z = mean(nll_N), z_weight * mean(log_z_N.square()), mean(log_z_N)
        smoothed = cross_entropy if smoothing == 0 else (1 - smoothing) * cross_entropy + smoothing * mean(uniform_N)
        log_z_max = _max_where(log_z_N, counted_N)
        ctx.save_for_backward(logits_NV, safe_N, counted_N, log_z_N, count)
        ctx.z_weight, ctx.smoothing = z_weight, smoothing
        terms = (cross_entropy, z_loss, log_z, log_z_max)
        ctx.mark_non_differentiable(*terms)
        return smoothed + z_loss, *terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        """A row: softmax * (1 + 2 * z_weight * log Z) - (1 - smoothing) * one-hot - smoothing / V, over the count."""
        logits_NV, safe_N, counted_N, log_z_N, count = ctx.saved_tensors
        weight_N = (grad / count).to(log_z_N.dtype) * counted_N
        scale_N = weight_N * (1 + 2 * ctx.z_weight * log_z_N)
        grad_NV = torch.empty_like(logits_NV)
        for rows in _chunks(logits_NV):
            _chunk_gradient(grad_NV[rows], logits_NV[rows], scale_N[rows])
            if ctx.smoothing:
                grad_NV[rows] -= (weight_N[rows] * (ctx.smoothing / logits_NV.shape[1])).unsqueeze(1)
        _subtract_at(grad_NV, safe_N, weight_N * (1 - ctx.smoothing))
        return grad_NV, None, None, None, None


def _chunks(logits_NV: Tensor) -> Iterator[slice]:
    num_rows, vocabulary = logits_NV.shape
    size = max(1, CHUNK_ELEMENTS.get(logits_NV.device.type, DEFAULT_CHUNK_ELEMENTS) // max(1, vocabulary))
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def _row_terms(logits_NV: Tensor, safe_N: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Per row: log Z, the target's negative log-probability, and the mean of all of them (0 without smoothing)."""
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    log_z_N, nll_N, uniform_N = torch.zeros((3, len(logits_NV)), dtype=dtype, device=logits_NV.device)
    first = next(_chunks(logits_NV), slice(0))
    scratch_CV = torch.empty_like(logits_NV[first], dtype=dtype)  # reused: fresh pages cost more than the arithmetic
    for rows in _chunks(logits_NV):
        logits_CV, targets_C1 = logits_NV[rows], safe_N[rows].unsqueeze(1)
        log_probs_CV = torch.log_softmax(logits_CV, dim=-1, dtype=dtype, out=scratch_CV[: len(logits_CV)])
        target_C1 = log_probs_CV.gather(1, targets_C1)
        nll_N[rows] = -target_C1.squeeze(1)
        log_z_N[rows] = (logits_CV.gather(1, targets_C1).to(dtype) - target_C1).squeeze(1)
        if smoothing:
            uniform_N[rows] = -log_probs_CV.mean(dim=1)
    return log_z_N, nll_N, uniform_N


def _max_where(values_N: Tensor, counted_N: Tensor) -> Tensor:
    if not len(values_N):
        return values_N.sum()
    highest = values_N.where(counted_N, -torch.inf).max()
    return highest.where(counted_N.any(), 0.0)


def _chunk_gradient(grad_CV: Tensor, logits_CV: Tensor, scale_C: Tensor) -> None:
    """grad = softmax(logits) * scale. Taking the softmax again is faster than exp(logits - log Z)."""
    if logits_CV.dtype == scale_C.dtype:
        torch.softmax(logits_CV, dim=-1, out=grad_CV).mul_(scale_C.unsqueeze(1))
    else:
        grad_CV.copy_(torch.softmax(logits_CV, dim=-1, dtype=scale_C.dtype).mul_(scale_C.unsqueeze(1)))


def _subtract_at(grad_NV: Tensor, targets_N: Tensor, weight_N: Tensor) -> None:
    rows_N = torch.arange(len(targets_N), device=targets_N.device)
    grad_NV[rows_N, targets_N] = (grad_NV[rows_N, targets_N].to(weight_N.dtype) - weight_N).to(grad_NV.dtype)
