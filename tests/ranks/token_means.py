"""Steps whose tokens are spread unevenly over ranks and micro-batches. Each function is one scenario.

One process calls `step` and `trained` too, with all the tokens.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lossguard.torch import causal_lm_loss, over_ranks, tokens_per_rank
from tests.ranks.agreement import Result, run_of
from tests.ranks.saving import KINDS
from tests.trainer.small import small_recipe
from trainer.data.windows import Batch
from trainer.faults import FaultyBatches
from trainer.process.ranks import rank_and_size
from trainer.train import Job, train

T, V, WIDTH = 6, 5, 4
TOKENS = {
    "uneven": (6, 6, 5, 0, 1, 0, 0, 1),
    "one rank has none": (3, 6, 2, 1, 0, 0, 0, 0),
    "no rank has any": (0,) * 8,
}
"""Counted tokens of each of 8 rows: every rank takes an equal number of rows."""


def padded(targets_BT: Tensor, num_tokens: tuple[int, ...]) -> Tensor:
    """The targets, and -100 after the first `num_tokens` of each row."""
    positions_1T = torch.arange(targets_BT.shape[1]).unsqueeze(0)
    return targets_BT.where(positions_1T < torch.tensor(num_tokens).unsqueeze(1), -100)


def my_rows(tensor: Tensor) -> Tensor:
    rank, size = rank_and_size()
    return tensor.chunk(size)[rank]


def step(num_tokens: tuple[int, ...], micro_batches: int = 1, bad: float = 0.0) -> Result:
    """The terms over all ranks and the gradient of one step. `bad` is added to an input of the first row."""
    torch.manual_seed(0)
    inputs_BTW, targets_BT = torch.randn(8, T, WIDTH), padded(torch.randint(V, (8, T)), num_tokens)
    inputs_BTW[0, 0, 0] += bad
    model = nn.Linear(WIDTH, V)
    network = DistributedDataParallel(model) if dist.is_initialized() else model
    parts = list(zip(my_rows(inputs_BTW).chunk(micro_batches), my_rows(targets_BT).chunk(micro_batches), strict=True))
    count = tokens_per_rank(*(targets for _, targets in parts))
    each = []
    for inputs, targets in parts:
        each.append(causal_lm_loss(network(inputs), targets, z_weight=0.1, label_smoothing=0.1))
        (each[-1].loss * (each[-1].num_tokens / count)).backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    terms, norm = over_ranks(each if micro_batches > 1 else each[0], model.weight.grad.norm())
    numbers = {field.name: getattr(terms, field.name).item() for field in dataclasses.fields(terms)}
    return numbers | {"grad_norm": norm.item(), "gradient": model.weight.grad.flatten().tolist()}


def steps_over_all_tokens(folder: Path) -> Result:
    return {name: [step(num_tokens), step(num_tokens, micro_batches=2)] for name, num_tokens in TOKENS.items()}


def a_nan_among_uneven_tokens(folder: Path) -> Result:
    return {key: repr(value) for key, value in step(TOKENS["one rank has none"], bad=math.nan).items()}


def plain_losses(folder: Path) -> Result:
    rank = rank_and_size()[0]
    found = {"mean": over_ranks([1.0 + rank, 2.0], float(rank)), "one": over_ranks(torch.tensor(1.0 + rank), 0.0)}
    found["weighed"] = over_ranks([1.0, 5.0], 0.0, num_tokens=[3 * (rank == 0), 1])
    return {name: [each.item() for each in pair] for name, pair in found.items()}


class Padded:
    """The batches, whose rows end in padding of different lengths."""

    def __init__(self, batches: FaultyBatches) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Batch:
        batch = self.batches[index]
        return dataclasses.replace(batch, targets_BT=padded(batch.targets_BT, (0, 16, 3, index)))


def trained(folder: Path, kind: str = "ddp") -> list[dict[str, float]]:
    """The metrics of each step of the trainer on padded batches."""
    own = folder / f"text-{rank_and_size()[0]}"
    own.mkdir(parents=True)
    recipe = small_recipe(own, steps=4, evaluate_every=0, parallel=kind)
    rows: list[dict[str, float]] = []
    job = Job(
        directory=folder,
        run=run_of() if dist.is_initialized() else None,
        mode="off",
        quiet=True,
        replace_batches=Padded,
        on_step=lambda step, batch, metrics: rows.append(metrics),
    )
    train(recipe, job)
    return rows


def the_trainer_on_padded_batches(folder: Path) -> Result:
    return {kind: trained(folder / f"padded-{kind}-{dist.get_world_size()}", kind) for kind in KINDS}


SCENARIOS: list[Any] = [steps_over_all_tokens, a_nan_among_uneven_tokens, plain_losses, the_trainer_on_padded_batches]
