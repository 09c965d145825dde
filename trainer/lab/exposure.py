"""Exposure bias, and what training on the model's own tokens does about it.

    python -m trainer lab --exposure [--seeds 3] [--steps 500] [--quick] [--json]

Every model is trained on the Markov chain of the recipe `markov`, so its distance from the truth is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from rich.console import Console

from lossguard import Estimate
from trainer.config import Recipe
from trainer.data.batches import TokenBatches
from trainer.data.markov import MarkovChain, open_chain
from trainer.display import print_table
from trainer.errors import UsageError
from trainer.lab.training import Lab
from trainer.measurement.exposure import ExposureBias, exposure_bias
from trainer.model import GPT
from trainer.optimization.scheduled_sampling import training_inputs

RECIPE = "markov"
TEACHER_FORCING: dict[str, Any] = {"parallel_scheduled_sampling": 0.0, "scheduled_sampling": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    "teacher forcing": {},
    "in parallel, 0.25": {"parallel_scheduled_sampling": 0.25},
    "in parallel, 1": {"parallel_scheduled_sampling": 1.0},
    "scheduled sampling, 0.25": {"scheduled_sampling": 0.25},
    "no teacher forcing": {"scheduled_sampling": 1.0},
}
"""Ways to train: settings of the objective that differ from teacher forcing, whatever the recipe says."""
NUM_BATCHES = 8
"""Batches whose true inputs are compared with those that a way of training feeds."""
COLUMNS = ("trained with", "held-out loss", "KL, true prefixes", "KL, own prefixes", "exposure bias", "true inputs")


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainedModel:
    """One model at the end of its training."""

    seed: int
    held_out_loss: float
    """Nats per token, after true prefixes."""
    exposure: ExposureBias
    true_inputs: float
    """Share of the inputs behind the first that this way of training feeds as they are in the data."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ExposureResult:
    """A way of training: means and standard errors over models of several seeds."""

    trained_with: str
    loss_floor: float
    """Loss of the chain itself, in nats per token."""
    marginal_entropy: float
    """Loss of a model that knows how frequent each token is, and ignores its inputs."""
    held_out_loss: Estimate
    true_prefixes: Estimate
    own_prefixes: Estimate
    bias: Estimate
    true_inputs: Estimate
    models: list[TrainedModel]


def compare_ways(lab: Lab) -> Iterator[ExposureResult]:
    """Train every way with every seed. Raises UsageError and Stopped."""
    recipes = [lab.recipe(RECIPE, seed) for seed in lab.seeds()]
    data, vocab_size = recipes[0].data.path, recipes[0].model.vocab_size
    chain = open_chain(data)
    if chain is None:
        raise UsageError(
            f"data.path = {data!r} cannot be used with --exposure, which needs known probabilities: "
            "use a Markov chain, such as markov:2,16."
        )
    if chain.vocab_size != vocab_size:
        raise UsageError(
            f"model.vocab_size = {vocab_size} cannot be used with the data {data}: it must be {chain.vocab_size}."
        )
    for name, settings in WAYS.items():
        ways = [replace(each, objective=replace(each.objective, **(TEACHER_FORCING | settings))) for each in recipes]
        models = [train_one(lab, name, recipe, chain) for recipe in ways]
        yield ExposureResult(
            trained_with=name,
            loss_floor=chain.loss_floor(recipes[0].model.context),
            marginal_entropy=chain.marginal_entropy(),
            held_out_loss=Estimate.of(each.held_out_loss for each in models),
            true_prefixes=Estimate.of(each.exposure.true_prefixes.mean for each in models),
            own_prefixes=Estimate.of(each.exposure.own_prefixes.mean for each in models),
            bias=Estimate.of(each.exposure.bias.mean for each in models),
            true_inputs=Estimate.of(each.true_inputs for each in models),
            models=models,
        )


def train_one(lab: Lab, name: str, recipe: Recipe, chain: MarkovChain) -> TrainedModel:
    result, rows = lab.train(recipe, name)
    model = result.components.model.eval()
    return TrainedModel(
        seed=recipe.seed,
        held_out_loss=rows[-1]["held_out_loss"],
        exposure=exposure_bias(model, chain, recipe.model.context),
        true_inputs=true_inputs(model, result.components.batches, recipe),
    )


def true_inputs(model: GPT, batches: TokenBatches, recipe: Recipe) -> float:
    """Return the share of true inputs (see TrainedModel). A token that is replaced by an equal one counts as true."""
    torch.manual_seed(recipe.seed)
    device = next(model.parameters()).device
    true = [batches[index].inputs_BT.to(device) for index in range(NUM_BATCHES)]
    equal = [training_inputs(model, inputs_BT, recipe.objective).eq(inputs_BT)[:, 1:] for inputs_BT in true]
    return torch.cat(equal).float().mean().item()


def show_exposure(results: Sequence[ExposureResult], console: Console) -> None:
    """Print one row per way of training."""
    fields = attrgetter("trained_with", "held_out_loss", "true_prefixes", "own_prefixes", "bias", "true_inputs")
    print_table(console, COLUMNS, [[str(value) for value in fields(each)] for each in results])
    first = results[0]
    console.print(
        f"Nats per token; mean +- standard error over {len(first.models)} seed(s), all measured with the same random "
        "numbers: --json has the standard errors over sequences. The chain itself has a loss of "
        f"{first.loss_floor:.3f} and a KL of 0. Knowing only how frequent each token is leaves "
        f"{first.marginal_entropy:.3f}."
    )
