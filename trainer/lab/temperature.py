"""The temperature changes what is sampled, and never the loss.

    python -m trainer lab --temperature [--seed 1] [--seeds 3] [--quick] [--json]

A model of the recipe `drill` is trained once per seed. Its held-out predictions are sampled at several temperatures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from lossguard import Estimate
from trainer.config import load_recipe
from trainer.lab.calibration import held_out_predictions
from trainer.lab.results import print_table, wide_console
from trainer.lab.training import train_unrecorded

RECIPE = "drill"
STEPS = 500
NUM_SEEDS = 3
TEMPERATURES = (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Predictions of one model at one temperature: means over the held-out tokens that are evaluated."""

    seed: int
    temperature: float
    loss: float
    """-log P of the true token, in nats: as trained and evaluated, without a temperature."""
    entropy: float
    """Entropy of the distribution that is sampled from, in nats."""
    hits: float
    """Probability that the sampled token is the true one."""


def sampling(logits_NV: Tensor, targets_N: Tensor, *, seed: int, temperature: float) -> Sampling:
    """Sampling at temperature T draws from softmax(logits / T)."""
    log_p_NV = (logits_NV.double() / temperature).log_softmax(dim=-1)
    entropy = -(log_p_NV.exp() * log_p_NV).sum(dim=-1).mean().item()
    hits = log_p_NV.gather(1, targets_N.unsqueeze(1)).exp().mean().item()
    loss = F.cross_entropy(logits_NV.double(), targets_N).item()
    return Sampling(seed, temperature, loss, entropy, hits)


@torch.no_grad()
def sampling_runs(
    seeds: Iterable[int],
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Sampling]:
    """Raises UsageError and Stopped."""
    for seed in seeds:
        recipe = load_recipe(RECIPE, [*overrides, f"seed={seed}"])
        report(f"{recipe.name}, seed {seed}, {recipe.steps} steps")
        with torch.enable_grad():
            outcome, _ = train_unrecorded(recipe, folder)
        logits_NV, targets_N = held_out_predictions(recipe, outcome.model)
        for temperature in TEMPERATURES:
            yield sampling(logits_NV, targets_N, seed=seed, temperature=temperature)


def show_sampling(results: Sequence[Sampling], console: Console | None = None) -> None:
    """Print one row per temperature: means over the seeds, with standard errors."""
    console = console or wide_console()
    rows = []
    for temperature in TEMPERATURES:
        own = [each for each in results if each.temperature == temperature]
        columns = ([each.loss for each in own], [each.entropy for each in own], [each.hits for each in own])
        rows.append((f"{temperature:g}", *(str(Estimate.of(values)) for values in columns)))
    print_table(console, ("temperature", "loss", "entropy of the samples", "samples that are the true token"), rows)
