"""Losses and metrics of a step over all its tokens: those of every rank, and of every micro-batch.

Shapes: R sets of terms, F fields of one.
"""

from collections.abc import Sequence
from typing import overload

import torch
import torch.distributed as dist
from torch import Tensor

from lossguard.run.collectives import Scalar, is_sharded, num_ranks
from lossguard.torch.loss import LossTerms, max_where


def tokens_per_rank(*targets: Tensor, ignore_index: int = -100) -> Tensor:
    """The counted tokens of a step divided by the number of ranks, as a 0-dim tensor (float32).

    `targets` are those of this rank, one tensor for each micro-batch. DDP and FSDP average gradients over the ranks,
    and micro-batches add theirs up. So a step follows the gradient of the mean over all its tokens, however they are
    spread, if each micro-batch calls `backward` on `terms.loss * (terms.num_tokens / tokens_per_rank(*targets))`. It is
    1 / number of ranks if no token counts, and the loss then 0. It costs one all-reduce of a number on the default
    process group and waits for no device. Call it on every rank.
    """
    total = torch.stack([(each != ignore_index).sum() for each in targets]).sum()
    size = num_ranks()
    if size > 1:
        dist.all_reduce(total)
    return total.clamp(min=1).float() / size


@overload
def over_ranks(terms: LossTerms | Sequence[LossTerms], grad_norm: Scalar) -> tuple[LossTerms, Tensor]: ...


@overload
def over_ranks(
    terms: Scalar | Sequence[Scalar], grad_norm: Scalar, *, num_tokens: Scalar | Sequence[Scalar] = 1
) -> tuple[Tensor, Tensor]: ...


def over_ranks(
    terms: LossTerms | Scalar | Sequence[LossTerms] | Sequence[Scalar],
    grad_norm: Scalar,
    *,
    num_tokens: Scalar | Sequence[Scalar] = 1,
) -> tuple[LossTerms | Tensor, Tensor]:
    """The means of the terms over all tokens, and the maxima of `log_z_max` and `grad_norm`, as 0-dim tensors to log.

    `terms` are those of this rank, or a list of those of its micro-batches. Each weighs as many tokens as its
    `num_tokens`, and the result has their sum. A NaN on any rank is NaN in the result. It costs one gather of a few
    numbers on the default process group and waits for no device; on one rank, the terms of one batch are returned as
    they are. Call it on every rank. `grad_norm` may be a DTensor (FSDP2).

    `terms` may also be plain losses, numbers or 0-dim tensors. Their mean is the result. Each weighs as much as
    `num_tokens` says, which is one number for all of them or a list; by default all weigh the same.
    """
    many = list(terms) if isinstance(terms, Sequence) else [terms]
    if not isinstance(many[0], LossTerms) and len(many) > 1 and num_ranks() == 1:
        return _mean(many, num_tokens), torch.as_tensor(_whole(grad_norm))  # type: ignore[arg-type]
    if not isinstance(many[0], LossTerms):
        counts = num_tokens if isinstance(num_tokens, Sequence) else [num_tokens] * len(many)
        losses = [_plain_terms(loss, count) for loss, count in zip(many, counts, strict=True)]  # type: ignore[arg-type]
        means, norm = over_ranks(losses, grad_norm)
        return means.loss, norm
    if isinstance(terms, Sequence):
        terms = _combined(torch.stack([_fields(each) for each in many]))  # type: ignore[arg-type]
    assert isinstance(terms, LossTerms)
    norm = torch.as_tensor(_whole(grad_norm))
    if num_ranks() == 1:
        return terms, norm
    mine_F = torch.cat((_fields(terms), norm.detach().to(terms.loss.device, torch.float32).view(1)))
    everyone_RF = gathered(mine_F)  # an all-reduce of maxima may drop a NaN
    return _combined(everyone_RF[:, :-1]), everyone_RF[:, -1].amax()


def gathered(mine_F: Tensor) -> Tensor:
    """The fields of all ranks, (R, F), R being their number. Call it on every rank; it waits for no device."""
    everyone = mine_F.new_empty(num_ranks() * len(mine_F))
    gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # the older name, before torch 2.13
    gather(everyone, mine_F)
    return everyone.view(num_ranks(), -1)


def _whole(norm: Scalar) -> Scalar:
    return norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[union-attr]


def _mean(losses: Sequence[Scalar], num_tokens: Scalar | Sequence[Scalar]) -> Tensor:
    losses_M = torch.stack([torch.as_tensor(each).detach().float() for each in losses])  # of M micro-batches
    if not isinstance(num_tokens, Sequence):
        return losses_M.mean()
    weights_M = torch.stack([torch.as_tensor(each) for _, each in zip(losses, num_tokens, strict=True)]).to(losses_M)
    return (losses_M * (weights_M / weights_M.sum().clamp(min=1))).sum()


def _plain_terms(loss: Scalar, num_tokens: Scalar) -> LossTerms:
    loss = torch.as_tensor(loss, dtype=torch.float32 if isinstance(loss, float) else None).detach()
    if not loss.is_cuda and num_ranks() > 1 and dist.get_backend() == "nccl":
        loss = loss.cuda()  # which gathers nothing else
    return LossTerms(loss, loss, loss, loss, loss, torch.as_tensor(num_tokens))


def _fields(terms: LossTerms) -> Tensor:
    """(F,), in float32. The number of tokens comes last."""
    values = (terms.loss, terms.cross_entropy, terms.z_loss, terms.log_z, terms.log_z_max, terms.num_tokens)
    return torch.stack([each.detach().to(terms.loss.device, torch.float32) for each in values])


def _combined(fields_RF: Tensor) -> LossTerms:
    *values, highest_R, num_tokens_R = fields_RF.unbind(dim=1)
    share_R = num_tokens_R / num_tokens_R.sum().clamp(min=1)
    loss, cross_entropy, z_loss, log_z = ((value_R * share_R).sum() for value_R in values)
    log_z_max = max_where(highest_R, (num_tokens_R > 0) | highest_R.isnan())
    # float32 holds the count of one rank exactly, and not always their sum.
    return LossTerms(loss, cross_entropy, z_loss, log_z, log_z_max, num_tokens_R.long().sum())
