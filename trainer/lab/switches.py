"""The lab: the same model with each switch changed, side by side.

python -m trainer lab [NAME ...] [--steps 500] [--json]
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lossguard import Run, encode_number
from trainer.config import Recipe
from trainer.data.batches import open_batches
from trainer.data.tokens import characters_per_byte
from trainer.errors import Stopped, UsageError
from trainer.objective import free_running_loss
from trainer.train import Job, train

SWITCHES = (
    "drill",
    "label_smoothing",
    "heavy_label_smoothing",
    "scheduled_sampling",
    "no_teacher_forcing",
    "squared_error",
    "untied_weights",
    "no_causal_mask",
    "no_clipping",
    "no_z_loss",
    "curriculum",
)
"""Recipes; the others change one setting of the first."""
NUM_LAST_STEPS = 25
"""Steps at the end over which training metrics are averaged."""
COLUMNS = (
    *("recipe", "loss", "held-out", "perplexity", "bits/byte", "grad norm", "log Z", "given", "free-running"),
    *("tokens/s", "MFU"),
)
WIDTH = 140  # characters, without a terminal


@dataclass(kw_only=True, slots=True, frozen=True)
class LabResult:
    """Losses in nats per token."""

    recipe: str
    loss: float
    held_out_loss: float
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
    given: float
    """Held-out loss of the second half of the positions, with the true tokens as inputs."""
    free_running: float
    """The same with the model's own tokens as inputs; the difference is the exposure bias."""
    tokens_per_parameter: float
    """Chinchilla's optimum is about 20."""
    flops: float
    """Of the whole training, counted from the matrix products; 6 N D is the usual estimate."""
    flops_6nd: float
    tokens_per_second: float | None
    """Median over the run; None for a run of one step."""
    mfu: float | None
    """Model FLOPs utilisation: see trainer/throughput.py."""

    def to_dict(self) -> dict[str, object]:
        values = asdict(self)
        return {name: encode_number(value) if isinstance(value, float) else value for name, value in values.items()}


def try_switch(recipe: Recipe, folder: Path) -> LabResult:
    """Train `recipe`, unrecorded, and measure the held-out loss at its end. Raises UsageError and Stopped."""
    recipe = replace(recipe, evaluate_every=recipe.steps)
    _, held_out = open_batches(recipe)
    if held_out is None:
        raise UsageError("data.held_out = 0.0 cannot be used in the lab, which compares held-out losses.")
    rows: list[dict[str, float]] = []
    job = Job(
        directory=folder, run=Run(id=recipe.name), quiet=True, on_step=lambda step, batch, metrics: rows.append(metrics)
    )
    outcome = train(recipe, job)
    if outcome.interrupted_by is not None:
        raise Stopped(outcome.interrupted_by)
    mean = {
        name: statistics.fmean(row[name] for row in rows[-NUM_LAST_STEPS:]) for name in ("loss", "grad_norm", "log_z")
    }
    loss = rows[-1]["held_out_loss"]
    bits_per_byte = rows[-1].get("held_out_bits_per_byte")
    characters = characters_per_byte(held_out.windows.shards) if held_out.windows.bytewise else None
    batch = held_out[0].to(next(outcome.model.parameters()).device)
    speed = outcome.throughput.median()
    outcome.model.eval()
    free_running, given = free_running_loss(outcome.model, batch.inputs_BT, batch.targets_BT)
    tokens, parameters = outcome.throughput.tokens, outcome.throughput.num_parameters
    return LabResult(
        recipe=recipe.name,
        held_out_loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_token=loss / math.log(2),
        bits_per_byte=bits_per_byte,
        bits_per_character=None if characters is None or bits_per_byte is None else bits_per_byte / characters,
        given=given,
        free_running=free_running,
        tokens_per_parameter=tokens / parameters,
        flops=float(tokens * outcome.throughput.flops_per_token),
        flops_6nd=float(6 * parameters * tokens),
        tokens_per_second=speed.get("tokens_per_second"),
        mfu=speed.get("mfu"),
        **mean,
    )


def show_lab(results: Sequence[LabResult], console: Console | None = None) -> None:
    """One row per recipe."""
    console = console or Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    table = Table()
    for name in COLUMNS:
        table.add_column(name)
    for each in results:
        losses = (each.loss, each.held_out_loss, each.perplexity, each.bits_per_byte)
        others = (each.grad_norm, each.log_z, each.given, each.free_running)
        numbers = ["-" if value is None else f"{value:.3f}" for value in (*losses, *others)]
        speed = "-" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}"
        table.add_row(each.recipe, *numbers, speed, "-" if each.mfu is None else f"{each.mfu:.1%}")
    console.print(table)
    if any(each.bits_per_byte is None for each in results):
        console.print("bits per byte need data.bytes_per_token, the average number of bytes per token")
    first = results[0]
    console.print(
        f"{first.tokens_per_parameter:.1f} tokens per parameter (Chinchilla: about 20); "
        f"{first.flops:.2e} FLOPs each (6ND: {first.flops_6nd:.2e})"
    )
