"""The lab: the same model with each switch changed, side by side.

python -m trainer lab [NAME ...] [--steps 500] [--seeds 3] [--json]
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lossguard import Estimate
from trainer.config import Recipe
from trainer.data.batches import open_batches
from trainer.data.ngram import NGram
from trainer.data.tokens import characters_per_byte, is_text, open_shards
from trainer.evaluation import perplexity
from trainer.exposure import OwnContinuations, own_continuations
from trainer.lab.results import print_table, wide_console
from trainer.lab.training import train_unrecorded
from trainer.model import GPT

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
    """Excess of the model's own continuations of held-out text over the real ones (trainer/exposure.py)."""
    tokens_per_parameter: float
    """Chinchilla's optimum is about 20."""
    flops: float
    """FLOPs of the whole training, counted from the matrix products; 6 N D is the usual estimate."""
    flops_6nd: float
    tokens_per_second: float | None
    """Median over the run; None for a run of one step."""
    mfu: float | None
    """Model FLOPs utilisation: see trainer/throughput.py."""


def try_switch(recipe: Recipe, folder: Path) -> LabResult:
    """Train `recipe`, unrecorded, and measure the held-out loss at its end. Raises UsageError and Stopped."""
    outcome, rows = train_unrecorded(recipe, folder)
    mean = {
        name: statistics.fmean(row[name] for row in rows[-NUM_LAST_STEPS:]) for name in ("loss", "grad_norm", "log_z")
    }
    loss = rows[-1]["held_out_loss"]
    bits_per_byte = rows[-1].get("held_out_bits_per_byte")
    speed = outcome.throughput.median()
    tokens, parameters = outcome.throughput.tokens, outcome.throughput.num_parameters
    return LabResult(
        recipe=recipe.name,
        seed=recipe.seed,
        held_out_loss=loss,
        held_out_loss_se=rows[-1].get("held_out_loss_se", math.nan),
        perplexity=perplexity(loss),
        bits_per_token=loss / math.log(2),
        bits_per_byte=bits_per_byte,
        bits_per_character=None if bits_per_byte is None else bits_per_character(recipe, bits_per_byte),
        own_continuations=measure_continuations(recipe, outcome.model),
        tokens_per_parameter=tokens / parameters,
        flops=float(tokens * outcome.throughput.flops_per_token),
        flops_6nd=float(6 * parameters * tokens),
        tokens_per_second=speed.get("tokens_per_second"),
        mfu=speed.get("mfu"),
        **mean,
    )


def bits_per_character(recipe: Recipe, bits_per_byte: float) -> float | None:
    """With the characters per byte of all the data; None if it is not text."""
    shards = open_shards(recipe.data.path)
    return bits_per_byte / characters_per_byte(shards) if is_text(shards) else None


def measure_continuations(recipe: Recipe, model: GPT) -> OwnContinuations:
    """Under an n-gram model of the first half of the held-out data, for windows spread over the other half."""
    _, held_out = open_batches(recipe)
    assert held_out is not None
    known, prompts = np.array_split(held_out.whole_windows, 2)
    reference = NGram(held_out.windows.take(known), order=NGRAM_ORDER, vocab_size=recipe.model.vocab_size)
    chosen = prompts[np.linspace(0, len(prompts) - 1, min(NUM_PROMPTS, len(prompts))).astype(int)]
    return own_continuations(model.eval(), torch.from_numpy(held_out.windows.take(chosen)[:, :-1]), reference)


def show_means(results: Sequence[LabResult], console: Console | None = None) -> None:
    """Print one row per recipe: means over the seeds, with standard errors."""
    console = console or wide_console()
    rows = []
    for recipe in dict.fromkeys(each.recipe for each in results):
        own = [each for each in results if each.recipe == recipe]
        rows.append([recipe, *(_over_seeds([getattr(each, field) for each in own]) for field in MEANS)])
    print_table(console, ("recipe", *MEANS.values()), rows)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(each.seed for each in results))
    console.print(f"Mean +- standard error over the seeds {seeds}.")


def _over_seeds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return str(Estimate.of(known)) if known else "-"


def show_lab(results: Sequence[LabResult], console: Console | None = None) -> None:
    """Print one row per recipe."""
    console = console or wide_console()
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
