"""Gates of several ranks. Each function is one scenario."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lossguard
from lossguard.torch import Gate
from tests.ranks.agreement import Result


def a_nan_on_one_rank_skips_the_update_on_all(folder: Path) -> Result:
    return {kind: _trained(kind) for kind in ("ddp", "fsdp", "fsdp, foreach")}


def _trained(kind: str) -> Result:
    """Four steps; in the third the loss of the last rank is NaN, and its gradient is not."""
    torch.manual_seed(0)
    model: Any = nn.Linear(4, 4)
    network: Any = DistributedDataParallel(model) if kind == "ddp" else fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=kind != "fsdp, foreach")
    gate = Gate([optimizer], run=lossguard.Run(id="r"), tell=print)
    is_last = dist.get_rank() == dist.get_world_size() - 1
    verdicts, weights = [], []
    for step in range(4):
        optimizer.zero_grad()
        loss = network(torch.ones(2, 4)).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        verdicts.append(gate.step(math.nan if is_last and step == 2 else loss, norm).item())
        weight = model.weight if kind == "ddp" else model.weight.full_tensor()
        weights.append(weight.detach().flatten().tolist())
    return {"verdicts": verdicts, "moves": [one != other for one, other in pairwise(weights)]}


SCENARIOS = (a_nan_on_one_rank_skips_the_update_on_all,)
