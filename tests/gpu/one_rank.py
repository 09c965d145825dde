"""One rank of torch.distributed, started by `tests.gpu.parts.one_rank` through torchrun.

torchrun --nproc-per-node=1 -m tests.gpu.one_rank cuda|cpu FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import lossguard
from lossguard import Order, Skip
from lossguard.torch import Checkpoints, causal_lm_loss, over_ranks
from tests.gpu.parts import EVERY, NUM_STEPS, ORDER_AT, ROLLBACK, SHAPES
from tests.lossguard.scripted import ScriptedRun
from trainer.model import GPT


def train(device: torch.device, folder: Path, orders: dict[int, Order], skips: list[Skip]) -> tuple[list[Any], Any]:
    """(loss and grad norm of each step of the line that lasted, the whole weights)"""
    torch.manual_seed(0)
    shape = SHAPES["cpu"]
    model = GPT(shape).to(device)
    for block in model.get_submodule("blocks").children():
        fully_shard(block)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    checkpoints = Checkpoints(folder, model=model, optimizer=optimizer)
    guard = lossguard.Guard(ScriptedRun(orders), checkpoints=checkpoints, every=EVERY)
    for skip in skips:
        guard.ledger.add(skip)
    batches = torch.randint(shape.vocab_size, (4 * NUM_STEPS, 4, shape.context + 1), device=device)
    seen: dict[int, tuple[float, float]] = {}
    for step, tokens_BT in guard.steps(list(batches), until=NUM_STEPS):
        optimizer.zero_grad()
        terms = causal_lm_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        terms.loss.backward()  # type: ignore[no-untyped-call]
        norm: Any = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        terms, norm = over_ranks(terms, norm)
        optimizer.step()
        seen[step] = (terms.cross_entropy.item(), float(norm))
    weights = [parameter.full_tensor() for parameter in model.parameters()]  # type: ignore[attr-defined]
    return [seen[step] for step in sorted(seen)], weights


def main(device_type: str, folder: Path) -> None:
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    torch.use_deterministic_algorithms(True)
    device = torch.device(device_type)
    ordered, ordered_weights = train(device, folder / "ordered", {ORDER_AT: ROLLBACK}, [])
    skipped, skipped_weights = train(device, folder / "skipped", {}, [Skip(5, 9)])
    assert ordered == skipped, f"the steps differ: {ordered[:12]} and {skipped[:12]}"
    assert all(map(torch.equal, ordered_weights, skipped_weights)), "the weights differ"
    print("measured", json.dumps({"equal_steps": len(ordered), "backend": dist.get_backend()}, separators=(",", ":")))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
