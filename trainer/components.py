"""The components of a run, built from its recipe before the run begins."""

from dataclasses import dataclass

import torch
from torch import nn

from trainer.config import Recipe
from trainer.data.batches import TokenBatches, bytes_per_token, open_batches
from trainer.data.held_out import HeldOut
from trainer.errors import UsageError, require
from trainer.measurement.throughput import Throughput, peak_flops
from trainer.model import GPT
from trainer.optimization.schedule import build_optimizer
from trainer.process.ranks import local_rank, parallelize, rank_and_size


@dataclass(kw_only=True, slots=True, frozen=True)
class Components:
    """Everything that a run needs besides the SDK."""

    device: torch.device
    batches: TokenBatches
    """Training data."""
    held_out: HeldOut | None
    """Data for the held-out loss; None if the recipe holds nothing back."""
    token_bytes: float | None
    """Bytes of text per token; None if unknown."""
    model: GPT
    network: nn.Module
    """The model, or its wrapper that distributes it over the ranks; used for the forward pass."""
    optimizer: torch.optim.Optimizer
    throughput: Throughput


def build_components(recipe: Recipe) -> Components:
    """Seeds torch's generator. Raises UsageError for settings that cannot be used."""
    device = choose_device(recipe.device)
    rank, num_ranks = rank_and_size()
    allowed = f"a multiple of {num_ranks} processes"
    require("data.batch_size", recipe.data.batch_size, recipe.data.batch_size % num_ranks == 0, allowed)
    torch.manual_seed(recipe.seed)
    batches, held_out = open_batches(recipe)
    model = GPT(recipe.model).to(device)
    network = parallelize(model, recipe.parallel)
    optimizer = build_optimizer(model, recipe.optimizer)
    if rank > 0:
        torch.manual_seed(recipe.seed + rank)  # the weights are the same on all ranks, the dropout is not
    return Components(
        device=device,
        batches=batches,
        held_out=held_out,
        token_bytes=bytes_per_token(recipe, batches, held_out),
        model=model,
        network=network,
        optimizer=optimizer,
        throughput=Throughput(
            recipe, num_parameters=model.num_parameters(), peak=peak_flops(device), num_devices=num_ranks
        ),
    )


def choose_device(name: str) -> torch.device:
    """The device of this process. Raises UsageError for a GPU that does not exist."""
    num_gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda", local_rank()) if num_gpus else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    number = name.partition(":")[2] or "0"
    if not number.isdecimal() or int(number) >= num_gpus:
        raise UsageError(f"device = {name!r} cannot be used: this machine has {num_gpus} usable GPU(s).")
    return torch.device(name)
