"""Calibration with label smoothing: how often the likeliest token is right, beside how sure the model is of it.

    python -m trainer lab --calibration [--seed 1] [--seeds 3] [--quick] [--json]

Shapes: N tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from lossguard import Estimate
from trainer.config import Recipe, load_recipe
from trainer.data.batches import open_batches
from trainer.lab.results import print_table, wide_console
from trainer.lab.training import train_unrecorded
from trainer.model import GPT

RECIPES = ("drill", "label_smoothing", "heavy_label_smoothing")
STEPS = 500
NUM_SEEDS = 3
NUM_BINS = 15
SUREST = 0.05
"""Share of the tokens of which a model is surest; the loss floor of smoothed targets shows there."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predictions of one model for the held-out tokens, at temperature 1."""

    smoothing: float
    seed: int
    loss: float
    """Nats per token, unsmoothed."""
    surest_loss: float
    """The loss of the tokens of which the model is surest."""
    loss_floor: float
    """The least unsmoothed loss of a model that predicts the smoothed targets: -ln(1 - s + s / V)."""
    bins: list[tuple[int, float, float]]
    """By the probability of the likeliest token, in equal steps: tokens, its mean, and how often it is the true one."""

    @property
    def error(self) -> float:
        """The expected calibration error (Naeini et al. 2015; Guo et al. 2017)."""
        return expected_calibration_error(self.bins)


def expected_calibration_error(bins: Sequence[tuple[int, float, float]]) -> float:
    """The mean distance of probability and frequency, over all tokens."""
    return sum(count * abs(sure - right) for count, sure, right in bins) / sum(count for count, _, _ in bins)


def loss_floor(smoothing: float, vocab_size: int) -> float:
    return 0.0 - math.log(1.0 - smoothing + smoothing / vocab_size)  # A minus alone would make -0 of 0.


def calibration(logits_NV: Tensor, targets_N: Tensor, *, smoothing: float, seed: int) -> Calibration:
    p_NV = logits_NV.double().softmax(dim=-1)
    sure_N, likeliest_N = p_NV.max(dim=-1)
    right_N = (likeliest_N == targets_N).double()
    losses_N = F.cross_entropy(logits_NV.double(), targets_N, reduction="none")
    bin_N = (sure_N * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        inside_N = bin_N == number
        if count := int(inside_N.sum()):
            bins.append((count, sure_N[inside_N].mean().item(), right_N[inside_N].mean().item()))
    surest_N = sure_N.argsort(descending=True)[: max(1, int(SUREST * len(sure_N)))]
    floor = loss_floor(smoothing, logits_NV.shape[1])
    return Calibration(smoothing, seed, losses_N.mean().item(), losses_N[surest_N].mean().item(), floor, bins)


@torch.no_grad()
def held_out_predictions(recipe: Recipe, model: GPT) -> tuple[Tensor, Tensor]:
    """Return the logits for the held-out tokens that are evaluated, and these tokens: (N, V), (N,)."""
    _, held_out = open_batches(recipe)
    assert held_out is not None  # train_unrecorded refuses a recipe without
    batch = next(held_out.batches(recipe.evaluate_windows)).to(next(model.parameters()).device)
    counted_BT = batch.targets_BT >= 0  # the others are padding
    return model.eval()(batch.inputs_BT)[counted_BT], batch.targets_BT[counted_BT]


def calibration_runs(
    seeds: Iterable[int],
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Calibration]:
    """Raises UsageError and Stopped."""
    for seed in seeds:
        for name in RECIPES:
            recipe = load_recipe(name, [*overrides, f"seed={seed}"])
            report(f"{recipe.name}, seed {seed}, {recipe.steps} steps")
            outcome, _ = train_unrecorded(recipe, folder)
            logits_NV, targets_N = held_out_predictions(recipe, outcome.model)
            yield calibration(logits_NV, targets_N, smoothing=recipe.objective.label_smoothing, seed=seed)


def show_calibration(results: Sequence[Calibration], console: Console | None = None) -> None:
    """Print one row per smoothing: means over the seeds, with standard errors."""
    console = console or wide_console()
    rows = []
    for smoothing in dict.fromkeys(each.smoothing for each in results):
        own = [each for each in results if each.smoothing == smoothing]
        columns = ([each.loss for each in own], [each.error for each in own], [each.surest_loss for each in own])
        means = (str(Estimate.of(values)) for values in columns)
        rows.append([f"{smoothing:g}", *means, f"{own[0].loss_floor:.3f}"])
    print_table(console, ("label smoothing", "loss", "calibration error", "loss where surest", "loss floor"), rows)
