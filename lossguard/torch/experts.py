"""How unevenly a mixture of experts spreads its tokens.

Shapes: E experts, L layers.
"""

import torch
from torch import Tensor


@torch.no_grad()
def expert_loads(choices: Tensor, num_experts: int) -> Tensor:
    """float32[E]: how often each expert was chosen, from the experts' numbers that a router chose (any shape).

    Unlike torch.bincount, it does not wait for the device.
    """
    chosen = choices.detach().reshape(-1).long()
    ones = torch.ones_like(chosen, dtype=torch.float32)
    return torch.zeros(num_experts, device=chosen.device).scatter_add_(0, chosen, ones)


@torch.no_grad()
def expert_imbalance(loads: Tensor) -> dict[str, Tensor]:
    """`expert_imbalance` of loads[E] or loads[L, E]: the largest load over the mean load, minus 1, of the worst layer.

    0 is perfect balance, E - 1 means that one expert gets everything: MaxVio of Wang et al. 2024 (Auxiliary-Loss-Free
    Load Balancing Strategy for Mixture-of-Experts). Add up the loads of all micro-batches (and, with all_reduce, of all
    ranks) first: those of a few tokens are never even. A layer without tokens counts as balanced. No host sync.
    """
    loads = loads.detach().float()
    mean = loads.mean(dim=-1)
    violation = torch.where(mean > 0, loads.amax(dim=-1) / mean.clamp(min=1e-30) - 1, 0.0)
    return {"expert_imbalance": violation.max()}
