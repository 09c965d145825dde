"""What a run consists of, built from its recipe before the run begins."""

from dataclasses import dataclass

import torch
from torch import nn

from trainer.config import Recipe
from trainer.data.batches import Batches, bytes_per_token, open_batches
from trainer.errors import UserMistake
from trainer.model import GPT
from trainer.peak import peak_of
from trainer.ranks import check_batch_size, local_rank, position, spread
from trainer.schedule import build_optimizer
from trainer.throughput import Throughput


@dataclass(kw_only=True, slots=True, frozen=True)
class Parts:
    device: torch.device
    batches: Batches
    """Of the text that is trained on."""
    held_out: Batches | None
    token_bytes: float | None
    """Bytes of text that a token stands for, where that is known."""
    model: GPT
    network: nn.Module
    """The model, or what spreads it over the ranks: what the forward pass goes through."""
    optimizer: torch.optim.Optimizer
    throughput: Throughput
    rank: int
    num_ranks: int


def build(recipe: Recipe) -> Parts:
    """Raises UserMistake for what cannot be built. Seeds torch's generator."""
    device = choose_device(recipe.device)
    check_batch_size(recipe.data.batch_size)
    torch.manual_seed(recipe.seed)
    batches, held_out = open_batches(recipe)
    model = GPT(recipe.model).to(device)
    network = spread(model, recipe.parallel)
    optimizer = build_optimizer(model, recipe.optimizer)
    rank, num_ranks = position()
    if rank > 0:
        torch.manual_seed(recipe.seed + rank)  # all have the same weights, and each its own dropout
    peak = peak_of(device)
    return Parts(
        device=device,
        batches=batches,
        held_out=held_out,
        token_bytes=bytes_per_token(recipe, batches.windows),
        model=model,
        network=network,
        optimizer=optimizer,
        throughput=Throughput(recipe, num_parameters=model.num_parameters(), peak=peak, num_devices=num_ranks),
        rank=rank,
        num_ranks=num_ranks,
    )


def choose_device(name: str) -> torch.device:
    """Raises UserMistake for a GPU that is not there."""
    num_gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda", local_rank()) if num_gpus else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    wanted = name.partition(":")[2] or "0"
    if not wanted.isdecimal() or int(wanted) >= num_gpus:
        raise UserMistake(f"device = {name!r} cannot be used: this machine has {num_gpus} usable GPU(s).")
    return torch.device(name)
