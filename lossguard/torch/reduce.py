"""The metrics of a step over all ranks, so that an anomaly on any rank is visible."""

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor

from lossguard.torch.dtensor import is_sharded
from lossguard.torch.loss import LossTerms


def over_ranks(terms: LossTerms, grad_norm: Tensor) -> tuple[LossTerms, Tensor]:
    """The means of the terms over the ranks, and the maxima of `log_z_max` and `grad_norm`, as 0-dim tensors to log.

    A NaN on any rank is NaN in the result. It costs one gather of a few numbers on the default process group and waits
    for no device; without a process group it returns its arguments. Call it on every rank. `grad_norm` may be a DTensor
    (FSDP2).
    """
    if is_sharded(grad_norm):
        grad_norm = grad_norm.full_tensor()  # type: ignore[attr-defined]
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return terms, grad_norm
    names = [field.name for field in dataclasses.fields(terms)]
    mine = torch.stack([*(getattr(terms, name).detach().float() for name in names), grad_norm.float()])
    gathered = mine.new_empty(dist.get_world_size() * len(mine))
    gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # the older name, before torch 2.13
    gather(gathered, mine)  # an all-reduce of maxima may drop a NaN
    everyone = gathered.view(-1, len(mine))
    *means, _ = everyone.mean(dim=0)
    highest = everyone.amax(dim=0)
    reduced = LossTerms(**dict(zip(names, means, strict=True)))
    return dataclasses.replace(reduced, log_z_max=highest[names.index("log_z_max")]), highest[-1]
