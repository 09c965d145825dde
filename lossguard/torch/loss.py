"""Cross-entropy, z-loss and log-Z statistics of a causal language model in one pass over the logits; by source, too.

Shapes: B batch, T positions, V vocabulary, N = B * T rows, C rows of one chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 20}
"""Elements of a chunk of rows, by device type: on a CPU, every pass but the first finds the chunk in the cache."""
DEFAULT_CHUNK_ELEMENTS = 1 << 26
"""Enough to keep any other device busy."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """0-dim tensors, in float32 at least. Means are over the counted tokens: those whose target is not ignored."""

    loss: Tensor
    """The loss to call backward on: mean cross-entropy (smoothed if requested) + z_loss."""
    cross_entropy: Tensor
    """Mean nats per counted token, without smoothing and z-loss. Detached, like all terms below."""
    z_loss: Tensor
    """z_weight * mean(log Z ** 2)."""
    log_z: Tensor
    """Mean log partition function."""
    log_z_max: Tensor
    num_tokens: Tensor = field(default_factory=lambda: torch.tensor(1))
    """The number of counted tokens (int64); 1 where it is not given."""


def causal_lm_loss(
    logits_BTV: Tensor,
    targets_BT: Tensor,
    *,
    z_weight: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> LossTerms:
    """Next-token loss over all positions whose target is not `ignore_index`; all terms are 0 when there is none.

    The z-loss z_weight * log(Z)^2 keeps Z near 1 (PaLM, Chowdhery et al. 2022, section 5, with z_weight 1e-4). Reduced
    precision is computed in float32, and the gradient is rounded once. Higher derivatives are right too (a penalty on
    gradients), but take several times the memory. For a step of several ranks or micro-batches see `tokens_per_rank`.
    Raises ValueError when the shapes do not match or `label_smoothing` is not between 0 and 1.
    """
    if logits_BTV.shape[:-1] != targets_BT.shape:
        raise ValueError(f"logits {tuple(logits_BTV.shape)} do not match targets {tuple(targets_BT.shape)}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing = {label_smoothing} cannot be used: it must be between 0 and 1")
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
        num_tokens = counted_N.sum()
        count = num_tokens.clamp(min=1)
        log_z_N = log_z_N.where(counted_N, 0.0)

        def mean(values_N: Tensor) -> Tensor:
            return values_N.where(counted_N, 0.0).sum() / count

        cross_entropy, z_loss, log_z = mean(nll_N), z_weight * mean(log_z_N.square()), mean(log_z_N)
        smoothed = cross_entropy if smoothing == 0 else (1 - smoothing) * cross_entropy + smoothing * mean(uniform_N)
        log_z_max = max_where(log_z_N, counted_N)
        ctx.save_for_backward(logits_NV, safe_N, counted_N, log_z_N, count)
        ctx.z_weight, ctx.smoothing = z_weight, smoothing
        terms = (cross_entropy, z_loss, log_z, log_z_max, num_tokens)
        ctx.mark_non_differentiable(*terms)
        return smoothed + z_loss, *terms

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        logits_NV, safe_N, counted_N, log_z_N, count = ctx.saved_tensors
        weight_N = (grad / count).to(log_z_N.dtype) * counted_N
        grad_NV = _LogitsGradient.apply(  # type: ignore[no-untyped-call]
            logits_NV, weight_N, safe_N, log_z_N, ctx.z_weight, ctx.smoothing
        )
        return grad_NV, None, None, None, None


class _LogitsGradient(torch.autograd.Function):
    """A row: weight * (softmax * (1 + 2 * z_weight * log Z) - (1 - smoothing) * one-hot - smoothing / V).

    A function of its own, because a penalty on gradients differentiates it once more.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: Tensor,
        weight_N: Tensor,
        safe_N: Tensor,
        log_z_N: Tensor,
        z_weight: float,
        smoothing: float,
    ) -> Tensor:
        ctx.save_for_backward(logits_NV, weight_N, safe_N)
        ctx.z_weight, ctx.smoothing = z_weight, smoothing
        scale_N = weight_N * (1 + 2 * z_weight * log_z_N)
        smooth_N = weight_N * (smoothing / logits_NV.shape[1])
        at_target_N = weight_N * (1 - smoothing) + smooth_N
        grad_NV = torch.empty_like(logits_NV)
        for rows in _chunks(logits_NV):
            smooth_C = smooth_N[rows] if smoothing else None
            _chunk_gradient(grad_NV[rows], logits_NV[rows], safe_N[rows], scale_N[rows], at_target_N[rows], smooth_C)
        return grad_NV

    @staticmethod
    def backward(ctx: Any, grad_NV: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate in plain operations, which autograd can differentiate again: seldom needed."""
        logits_NV, weight_N, safe_N = ctx.saved_tensors
        exact_NV, given_NV, weight_N1 = logits_NV.to(weight_N.dtype), grad_NV.to(weight_N.dtype), weight_N.unsqueeze(1)
        probs_NV = exact_NV.softmax(dim=1)
        mean_N1 = (probs_NV * given_NV).sum(dim=1, keepdim=True)
        scale_N1 = 1 + 2 * ctx.z_weight * exact_NV.logsumexp(dim=1, keepdim=True) if ctx.z_weight else 1.0
        along_N1 = scale_N1 * mean_N1 - (1 - ctx.smoothing) * given_NV.gather(1, safe_N.unsqueeze(1))
        along_N1 = along_N1 - ctx.smoothing * given_NV.mean(dim=1, keepdim=True)
        curved_NV = weight_N1 * probs_NV * (scale_N1 * (given_NV - mean_N1) + 2 * ctx.z_weight * mean_N1)
        return curved_NV.to(logits_NV.dtype), along_N1.squeeze(1), None, None, None, None


def _chunks(logits_NV: Tensor) -> Iterator[slice]:
    num_rows, vocabulary = logits_NV.shape
    size = max(1, CHUNK_ELEMENTS.get(logits_NV.device.type, DEFAULT_CHUNK_ELEMENTS) // max(1, vocabulary))
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def _row_terms(logits_NV: Tensor, safe_N: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Per row: log Z, the target's negative log-probability, and the mean of all of them (0 without smoothing).

    log Z is logit - log_softmax, of the likeliest token: of any other, a large logit would cancel, and -inf be NaN.
    """
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    log_z_N, nll_N, uniform_N = torch.zeros((3, len(logits_NV)), dtype=dtype, device=logits_NV.device)
    first = next(_chunks(logits_NV), slice(0))
    scratch_CV = torch.empty_like(logits_NV[first], dtype=dtype)  # reused: fresh pages cost more than the arithmetic
    for rows in _chunks(logits_NV):
        logits_CV, targets_C1 = logits_NV[rows], safe_N[rows].unsqueeze(1)
        log_probs_CV = torch.log_softmax(logits_CV, dim=-1, dtype=dtype, out=scratch_CV[: len(logits_CV)])
        nll_N[rows] = -log_probs_CV.gather(1, targets_C1).squeeze(1)
        log_z_N[rows] = logits_CV.amax(dim=1).to(dtype) - log_probs_CV.amax(dim=1)
        if smoothing:
            uniform_N[rows] = -log_probs_CV.mean(dim=1)
    return log_z_N, nll_N, uniform_N


def max_where(values_N: Tensor, counted_N: Tensor) -> Tensor:
    """The maximum of the counted values, 0 if there is none; NaN if one of them is NaN."""
    if not len(values_N):
        return values_N.sum()
    highest = values_N.where(counted_N, -torch.inf).max()
    return highest.where(counted_N.any(), 0.0)


def _chunk_gradient(
    grad_CV: Tensor, logits_CV: Tensor, targets_C: Tensor, scale_C: Tensor, at_target_C: Tensor, smooth_C: Tensor | None
) -> None:
    """grad = softmax(logits) * scale - smooth, at the target - at_target; computed in `scale`'s dtype and rounded once.

    Taking the softmax again is faster than exp(logits - log Z).
    """
    targets_C1, scale_C1 = targets_C.unsqueeze(1), scale_C.unsqueeze(1)
    in_place = grad_CV if grad_CV.dtype == scale_C.dtype else None
    probs_CV = torch.softmax(logits_CV, dim=-1, dtype=scale_C.dtype, out=in_place)
    target_C1 = probs_CV.gather(1, targets_C1) * scale_C1 - at_target_C.unsqueeze(1)
    if smooth_C is None:
        torch.mul(probs_CV, scale_C1, out=grad_CV)
    else:
        torch.sub(probs_CV.mul_(scale_C1), smooth_C.unsqueeze(1), out=grad_CV)
    grad_CV.scatter_(1, targets_C1, target_C1.to(grad_CV.dtype))


# The loss of each source: one that rises while the mean falls is lost in the mean.
#
# Shapes: B sequences, T positions, V vocabulary, S sources.


@torch.no_grad()
def token_losses(logits_BTV: Tensor, targets_BT: Tensor, *, ignore_index: int = -100) -> Tensor:
    """float[B, T]: cross-entropy of each token in nats, in float32 at least; 0 where the target is ignored.

    A pass over the logits of its own, chunk by chunk, beside that of `causal_lm_loss`: take it every few steps only.
    """
    logits_NV, targets_N = logits_BTV.detach().reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1)
    counted_N = targets_N != ignore_index
    _, nll_N, _ = _row_terms(logits_NV, targets_N.where(counted_N, 0), 0.0)
    return nll_N.where(counted_N, 0.0).view(targets_BT.shape)


@torch.no_grad()
def loss_by_source(
    losses_BT: Tensor, targets_BT: Tensor, sources: Sequence[str], *, ignore_index: int = -100
) -> dict[str, Tensor]:
    """`source_loss/NAME`: the mean loss of the tokens of each source in this batch, 0-dim tensors on its device.

    `sources` names the source of each of the B sequences: the data loader knows it, so that a source without sequences
    in this batch is left out without a host sync. One whose targets are all ignored has the loss 0. The means are those
    of this rank's batch. Raises ValueError when there are not B names.
    """
    if len(sources) != len(losses_BT):
        raise ValueError(f"sources has {len(sources)} names for {len(losses_BT)} sequences")
    names = list(dict.fromkeys(sources))
    numbers = torch.tensor([names.index(name) for name in sources]).to(losses_BT.device, non_blocking=True)
    counted_BT = targets_BT != ignore_index
    sums_S = losses_BT.new_zeros(len(names))
    sums_S.index_add_(0, numbers, losses_BT.detach().where(counted_BT, 0.0).sum(dim=1))
    counts_S = torch.zeros_like(sums_S).index_add_(0, numbers, counted_BT.sum(dim=1).to(sums_S.dtype))
    means_S = sums_S / counts_S.clamp(min=1)
    return {f"source_loss/{name}": mean for name, mean in zip(names, means_S.unbind(), strict=True)}
