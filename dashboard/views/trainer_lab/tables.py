"""The tables of the Trainer lab: means over seeds, with standard errors. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard import formatting
from dashboard.data.trainer.lab_results import (
    AbilityRun,
    CalibrationRun,
    ExposureRun,
    Gradients,
    RoundedEstimate,
    ScalingRun,
    SwitchRun,
    TemperatureRun,
    UnstableRun,
    fit,
    groups,
    sizes,
)
from dashboard.figures.compute import PUBLISHED, PublishedRun

TEXT_COLUMNS = ("Recipe", "Safeguard", "Trained with", "Kind", "Model", "Source")
"""The others hold numbers, which stand on the right."""
MAX_EXP = 700.0
"""exp of a larger loss is infinite in double precision."""


Column = str | Callable[[Sequence[Any]], object]
"""A field whose mean over the runs of a group is shown, or a function of these runs."""


def switches(runs: Sequence[SwitchRun]) -> pd.DataFrame:
    columns: dict[str, Column] = {
        "Held-out loss": held_out_loss,
        "Perplexity": perplexity,
        "Bits per token": bits_per_token,
        "Bits per byte": lambda own: _known([run.bits_per_byte for run in own]),
        "Bits per character": bits_per_character,
        "log Z": "log_z",
    }
    return _by_group(runs, "Recipe", "recipe", columns)


def _by_group(runs: Sequence[Any], title: str, name: str, columns: Mapping[str, Column]) -> pd.DataFrame:
    """One row for each value of the field `name`."""
    return pd.DataFrame(
        {
            title: formatting.visible(value) if isinstance(value, str) else formatting.number(value),
            **{column: _cell(own, of) for column, of in columns.items()},
            "Seeds": _seeds(own),
        }
        for value, own in groups(runs, name).items()
    )


def _cell(runs: Sequence[Any], column: Column) -> str:
    found = RoundedEstimate.of(getattr(run, column) for run in runs) if isinstance(column, str) else column(runs)
    return "-" if found is None else str(found)


def held_out_loss(runs: Sequence[SwitchRun]) -> RoundedEstimate:
    """Return the loss with its standard error over the seeds; of a single seed, over the documents."""
    if len(runs) == 1:
        return RoundedEstimate(runs[0].held_out_loss, runs[0].held_out_loss_se)
    return RoundedEstimate.of(run.held_out_loss for run in runs)


def perplexity(runs: Sequence[SwitchRun]) -> RoundedEstimate:
    """exp(held-out loss) of each run."""
    losses = [run.held_out_loss for run in runs]
    return RoundedEstimate.of(math.exp(loss) if loss < MAX_EXP else math.inf for loss in losses)


def bits_per_token(runs: Sequence[SwitchRun]) -> RoundedEstimate:
    return RoundedEstimate.of(run.held_out_loss / math.log(2) for run in runs)


def bits_per_character(runs: Sequence[SwitchRun]) -> RoundedEstimate | None:
    """Return the bits; None if one of the runs does not know them."""
    return _known([run.bits_per_character for run in runs])


def scaling(runs: Sequence[ScalingRun]) -> pd.DataFrame:
    by_size = sizes(runs)
    fitted = fit(by_size)
    return pd.DataFrame(
        {
            "Width": formatting.count(size.width),
            "Parameters": formatting.count(size.parameters),
            "Tokens": formatting.count(size.tokens),
            "FLOPs (6ND)": formatting.scientific(size.flops),
            "Held-out loss": str(size.loss),
            "Law": "-" if fitted is None else formatting.number(fitted.law(size.flops)),
            "Seeds": _seeds(size.losses),
        }
        for size in by_size
    )


def unstable(runs: Sequence[UnstableRun]) -> pd.DataFrame:
    columns: dict[str, Column] = {
        "Jumps": "num_jumps",
        "Largest jump": largest_jump,
        "Steps lost": "steps_lost",
        "Final loss": "final_loss",
        "Jumps by seed": lambda own: ", ".join(formatting.count(run.num_jumps) for run in own),
    }
    return _by_group(runs, "Safeguard", "safeguard", columns)


def largest_jump(runs: Sequence[UnstableRun]) -> str:
    """Return the jump's peak relative to the level before; a dash without a jump."""
    largest = max((run.largest_jump for run in runs if run.largest_jump is not None), default=None)
    if largest is None:
        return "-"
    return f"{largest:.1f} x" if largest < 1e4 else f"{formatting.number(largest)} x"


def exposure(runs: Sequence[ExposureRun]) -> pd.DataFrame:
    columns: dict[str, Column] = {
        "Held-out loss": "held_out_loss",
        "KL, true prefixes": "true_prefixes",
        "KL, own prefixes": "own_prefixes",
        "Exposure bias": "bias",
        "True inputs": "true_inputs",
    }
    return _by_group(runs, "Trained with", "trained_with", columns)


def temperature(runs: Sequence[TemperatureRun]) -> pd.DataFrame:
    columns = {"Loss": "loss", "Entropy of the samples": "entropy", "True token": "hits"}
    return _by_group(runs, "Temperature", "temperature", columns)


def calibration(runs: Sequence[CalibrationRun]) -> pd.DataFrame:
    columns: dict[str, Column] = {
        "Loss": "loss",
        "Calibration error": "error",
        "Loss where surest": "surest_loss",
        "Loss floor": lambda own: formatting.number(own[0].loss_floor),
    }
    return _by_group(runs, "Label smoothing", "smoothing", columns)


def abilities(runs: Sequence[AbilityRun]) -> pd.DataFrame:
    return _by_group(runs, "Kind", "kind", {"Loss untrained": "first_loss", "Loss trained": "last_loss"})


def gradients(rows: Sequence[Gradients]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "P of the true token": formatting.number(row.probability),
            "Cross-entropy": formatting.number(row.cross_entropy),
            "Squared error, one wrong token": formatting.number(row.squared_error_one_wrong),
            "Squared error, spread": formatting.number(row.squared_error_spread),
        }
        for row in rows
    )


def published() -> pd.DataFrame:
    """Return the table of published runs, with estimates marked."""
    return pd.DataFrame(
        {
            "Model": run.label,
            "Parameters": _published(run.parameters),
            "Tokens": _published(run.tokens),
            "Tokens per parameter": _ratio(run),
            "FLOPs (6ND)": "-" if run.parameters is None else formatting.scientific(run.flops),
            "Reported FLOPs": formatting.scientific(run.reported_flops),
            "Source": run.source,
        }
        for run in PUBLISHED
    )


def _published(value: float | None) -> str:
    return "unpublished" if value is None else formatting.abbreviated(value)


def _ratio(run: PublishedRun) -> str:
    return "-" if run.parameters is None or run.tokens is None else formatting.number(run.tokens / run.parameters)


def _known(values: Sequence[float | None]) -> RoundedEstimate | None:
    """Return the values; None if one of them is not known."""
    numbers = [value for value in values if value is not None]
    return RoundedEstimate.of(numbers) if len(numbers) == len(values) else None


def _seeds(runs: Sequence[object]) -> str:
    return formatting.count(len(runs))
