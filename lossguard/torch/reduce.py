"""The numbers of a step over all ranks, so that trouble on any of them is seen."""

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor

from lossguard.torch.loss import LossTerms
from lossguard.torch.sharding import is_sharded


def over_ranks(terms: LossTerms, grad_norm: Tensor) -> tuple[LossTerms, Tensor]:
    """The terms as means over the ranks, `log_z_max` and `grad_norm` as the highest of them: 0-dim, to be logged.

    A NaN on any rank is NaN in the result. One gather of a few numbers on the default process group, which waits for
    no device; without one the arguments come back. Call it on every rank. `grad_norm` may be a DTensor (FSDP2).
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
