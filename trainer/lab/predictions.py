"""The predictions of trained models for held-out tokens: their calibration, and samples of them at a temperature.

    python -m trainer lab --calibration [--seed 1] [--seeds 3] [--quick] [--json]
    python -m trainer lab --temperature [--seed 1] [--seeds 3] [--quick] [--json]

Calibration is how often the likeliest token is right, beside how sure the model is of it; label smoothing changes it.
The temperature changes what is sampled, and never the loss.

Shapes: N tokens, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from trainer.components import Components
from trainer.config import Recipe
from trainer.display import grouped, means, print_table
from trainer.lab.training import Lab

SMOOTHED = ("drill", "label_smoothing", "heavy_label_smoothing")
"""Recipes whose calibration is compared."""
NUM_BINS = 15
SUREST = 0.05
"""Share of the tokens of which a model is surest; the loss floor of smoothed targets shows there."""
SAMPLED = "drill"
TEMPERATURES = (0.5, 1.0, 2.0)


@torch.no_grad()
def held_out_predictions(recipe: Recipe, trained: Components) -> tuple[Tensor, Tensor]:
    """Return the logits for the held-out tokens that are evaluated, and these tokens: (N, V), (N,)."""
    assert trained.held_out is not None  # Lab.train refuses a recipe without
    batch = next(trained.held_out.batches(recipe.evaluate_windows)).to(trained.device)
    counted_BT = batch.targets_BT >= 0  # the others are padding
    return trained.model.eval()(batch.inputs_BT)[counted_BT], batch.targets_BT[counted_BT]


# Calibration.


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
        """The expected calibration error: the mean distance of probability and frequency, over all tokens (Naeini et
        al. 2015; Guo et al. 2017)."""
        distances = sum(count * abs(sure - right) for count, sure, right in self.bins)
        return distances / sum(count for count, _, _ in self.bins)


def calibration(logits_NV: Tensor, targets_N: Tensor, *, smoothing: float, seed: int) -> Calibration:
    sure_N, likeliest_N = logits_NV.double().softmax(dim=-1).max(dim=-1)
    right_N = (likeliest_N == targets_N).double()
    losses_N = F.cross_entropy(logits_NV.double(), targets_N, reduction="none")
    bin_N = (sure_N * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        inside_N = bin_N == number
        if count := int(inside_N.sum()):
            bins.append((count, sure_N[inside_N].mean().item(), right_N[inside_N].mean().item()))
    surest_N = sure_N.argsort(descending=True)[: max(1, int(SUREST * len(sure_N)))]
    floor = 0.0 - math.log(1.0 - smoothing + smoothing / logits_NV.shape[1])  # A minus alone would make -0 of 0.
    return Calibration(smoothing, seed, losses_N.mean().item(), losses_N[surest_N].mean().item(), floor, bins)


def calibrations(lab: Lab) -> Iterator[Calibration]:
    """Raises UsageError and Stopped."""
    for seed in lab.seeds():
        for name in SMOOTHED:
            recipe = lab.recipe(name, seed)
            result, _ = lab.train(recipe)
            predictions = held_out_predictions(recipe, result.components)
            yield calibration(*predictions, smoothing=recipe.objective.label_smoothing, seed=seed)


def show_calibrations(results: Sequence[Calibration], console: Console) -> None:
    """Print one row per smoothing: means over the seeds, with standard errors."""
    rows = [
        [f"{smoothing:g}", *means(own, "loss", "error", "surest_loss"), f"{own[0].loss_floor:.3f}"]
        for smoothing, own in grouped(results, "smoothing").items()
    ]
    print_table(console, ("label smoothing", "loss", "calibration error", "loss where surest", "loss floor"), rows)


# Samples at a temperature.


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


def samplings(lab: Lab) -> Iterator[Sampling]:
    """Sample one model per seed at all temperatures. Raises UsageError and Stopped."""
    for seed in lab.seeds():
        recipe = lab.recipe(SAMPLED, seed)
        result, _ = lab.train(recipe)
        predictions = held_out_predictions(recipe, result.components)
        for temperature in TEMPERATURES:
            yield sampling(*predictions, seed=seed, temperature=temperature)


def show_samplings(results: Sequence[Sampling], console: Console) -> None:
    """Print one row per temperature: means over the seeds, with standard errors."""
    groups = grouped(results, "temperature")
    rows = [[f"{temperature:g}", *means(own, "loss", "entropy", "hits")] for temperature, own in groups.items()]
    print_table(console, ("temperature", "loss", "entropy of the samples", "samples that are the true token"), rows)
