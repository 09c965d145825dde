"""The lab: the same model with each switch changed, side by side.

python -m trainer lab [NAME ...] [--steps 500] [--seeds 3] [--json]
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from trainer.components import Components
from trainer.config import Recipe
from trainer.data.ngram import NGram
from trainer.data.tokens import characters_per_byte, is_text, open_shards
from trainer.display import grouped, means, print_table
from trainer.lab.training import Lab
from trainer.measurement.evaluation import perplexity
from trainer.measurement.exposure import OwnContinuations, own_continuations

SWITCHES = (
    "drill",
    "label_smoothing",
    "heavy_label_smoothing",
    "parallel_scheduled_sampling",
    "scheduled_sampling",
    "no_teacher_forcing",
    "squared_error",
    "untied_weights",
    "no_causal_mask",
    "no_shift",
    "no_clipping",
    "no_z_loss",
    "curriculum",
    "padded",
)
"""Recipes; the others change one setting of the first."""
NUM_PROMPTS = 512
"""Held-out windows whose second half the model continues in place of the text."""
NGRAM_ORDER = 4
NUM_LAST_STEPS = 25
"""Steps at the end over which training metrics are averaged."""
COLUMNS = (
    *("recipe", "loss", "held-out", "SE", "perplexity", "bits/byte", "grad norm", "log Z", "own text"),
    *("tokens/s", "MFU"),
)
MEANS = {
    "loss": "loss",
    "held_out_loss": "held-out",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "bits_per_character": "bits/character",
    "grad_norm": "grad norm",
    "log_z": "log Z",
}
"""Column of the means over seeds, by the field of a result."""


@dataclass(kw_only=True, slots=True, frozen=True)
class LabResult:
    """Losses in nats per token."""

    recipe: str
    seed: int
    loss: float
    held_out_loss: float
    held_out_loss_se: float
    """Standard error of the held-out loss over documents; differences of recipes are more certain."""
    perplexity: float
    """exp(held-out loss)."""
    bits_per_token: float
    """Held-out."""
    bits_per_byte: float | None
    """Held-out; None if the number of bytes per token is unknown."""
    bits_per_character: float | None
    """Held-out; None if the data is not text."""
    grad_norm: float
    """Before clipping."""
    log_z: float
    own_continuations: OwnContinuations
    """Excess of the model's own continuations of held-out text over the real ones (trainer/measurement/exposure.py)."""
    tokens_per_parameter: float
    """Chinchilla's optimum is about 20."""
    flops: float
    """FLOPs of the whole training, counted from the matrix products; 6 N D is the usual estimate."""
    flops_6nd: float
    tokens_per_second: float | None
    """Median over the run; None for a run of one step."""
    mfu: float | None
    """Model FLOPs utilisation: see trainer/measurement/throughput.py."""


def try_switches(lab: Lab) -> list[LabResult]:
    """Raises UsageError and Stopped."""
    recipes = [lab.recipe(name, seed) for seed in lab.seeds(1) for name in lab.recipes or SWITCHES]
    return [try_switch(lab, recipe) for recipe in recipes]


def try_switch(lab: Lab, recipe: Recipe) -> LabResult:
    """Train `recipe`, unrecorded, and measure the held-out loss at its end. Raises UsageError and Stopped."""
    result, rows = lab.train(recipe)
    mean = {
        name: statistics.fmean(row[name] for row in rows[-NUM_LAST_STEPS:]) for name in ("loss", "grad_norm", "log_z")
    }
    loss = rows[-1]["held_out_loss"]
    bits_per_byte = rows[-1].get("held_out_bits_per_byte")
    throughput = result.components.throughput
    speed, tokens, parameters = throughput.median(), throughput.tokens, throughput.num_parameters
    return LabResult(
        recipe=recipe.name,
        seed=recipe.seed,
        held_out_loss=loss,
        held_out_loss_se=rows[-1].get("held_out_loss_se", math.nan),
        perplexity=perplexity(loss),
        bits_per_token=loss / math.log(2),
        bits_per_byte=bits_per_byte,
        bits_per_character=None if bits_per_byte is None else bits_per_character(recipe, bits_per_byte),
        own_continuations=measure_continuations(recipe, result.components),
        tokens_per_parameter=tokens / parameters,
        flops=float(tokens * throughput.flops_per_token),
        flops_6nd=float(6 * parameters * tokens),
        tokens_per_second=speed.get("tokens_per_second"),
        mfu=speed.get("mfu"),
        **mean,
    )


def bits_per_character(recipe: Recipe, bits_per_byte: float) -> float | None:
    """With the characters per byte of all the data; None if it is not text."""
    shards = open_shards(recipe.data.path)
    return bits_per_byte / characters_per_byte(shards) if is_text(shards) else None


def measure_continuations(recipe: Recipe, trained: Components) -> OwnContinuations:
    """Under an n-gram model of the first half of the held-out data, for windows spread over the other half."""
    held_out = trained.held_out
    assert held_out is not None  # Lab.train refuses a recipe without
    known, prompts = np.array_split(held_out.whole_windows, 2)
    reference = NGram(held_out.windows.take(known), order=NGRAM_ORDER, vocab_size=recipe.model.vocab_size)
    chosen = prompts[np.linspace(0, len(prompts) - 1, min(NUM_PROMPTS, len(prompts))).astype(int)]
    return own_continuations(trained.model.eval(), torch.from_numpy(held_out.windows.take(chosen)[:, :-1]), reference)


def show_switches(results: Sequence[LabResult], console: Console) -> None:
    """Print one row per recipe; with several seeds means over them, with standard errors."""
    seeds = grouped(results, "seed")
    if len(seeds) == 1:
        show_single(results, console)
        return
    rows = []
    for recipe, own in grouped(results, "recipe").items():
        known = {field: [each for each in own if getattr(each, field) is not None] for field in MEANS}
        rows.append([recipe, *(means(of, field)[0] if of else "-" for field, of in known.items())])
    print_table(console, ("recipe", *MEANS.values()), rows)
    console.print(f"Mean +- standard error over the seeds {', '.join(map(str, seeds))}.")


def show_single(results: Sequence[LabResult], console: Console) -> None:
    """Print the results of one seed."""
    rows = []
    for each in results:
        losses = (each.loss, each.held_out_loss, each.held_out_loss_se, each.perplexity, each.bits_per_byte)
        others = (each.grad_norm, each.log_z)
        numbers = ["-" if value is None else f"{value:.3f}" for value in (*losses, *others)]
        numbers.append(str(each.own_continuations.excess))
        speed = "-" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}"
        rows.append([each.recipe, *numbers, speed, "-" if each.mfu is None else f"{each.mfu:.1%}"])
    print_table(console, COLUMNS, rows)
    if any(each.bits_per_byte is None for each in results):
        console.print("bits per byte need data.bytes_per_token, the average number of bytes per token")
    first = results[0]
    console.print(
        f"{first.tokens_per_parameter:.1f} tokens per parameter (Chinchilla: about 20); "
        f"{first.flops:.2e} FLOPs each (6ND: {first.flops_6nd:.2e})"
    )
