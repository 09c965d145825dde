"""The tables of the Trainer lab: means over seeds, with standard errors. Pure."""

import math
from collections.abc import Sequence

import pandas as pd

from dashboard import formatting
from dashboard.data.compute import PUBLISHED, PublishedRun
from dashboard.data.estimate import RoundedEstimate
from dashboard.data.lab_results import (
    AbilityRun,
    CalibrationRun,
    ExposureRun,
    Gradients,
    ScalingRun,
    SwitchRun,
    TemperatureRun,
    UnstableRun,
    groups,
)
from dashboard.data.power_law import fit, sizes

TEXT_COLUMNS = ("Recipe", "Safeguard", "Trained with", "Kind", "Model", "Source")
"""The others hold numbers, which stand on the right."""
MAX_EXP = 700.0
"""exp of a larger loss is infinite in double precision."""


def switches(runs: Sequence[SwitchRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Recipe": formatting.visible(recipe),
            "Held-out loss": str(held_out_loss(own)),
            "Perplexity": str(perplexity(own)),
            "Bits per token": str(bits_per_token(own)),
            "Bits per byte": _or_dash(_known([run.bits_per_byte for run in own])),
            "Bits per character": _or_dash(bits_per_character(own)),
            "log Z": str(RoundedEstimate.of(run.log_z for run in own)),
            "Seeds": _seeds(own),
        }
        for recipe, own in groups(runs, "recipe").items()
    )


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
    return pd.DataFrame(
        {
            "Safeguard": formatting.visible(safeguard),
            "Jumps": str(RoundedEstimate.of(run.num_jumps for run in own)),
            "Largest jump": largest_jump(own),
            "Steps lost": str(RoundedEstimate.of(run.steps_lost for run in own)),
            "Final loss": str(RoundedEstimate.of(run.final_loss for run in own)),
            "Jumps by seed": ", ".join(formatting.count(run.num_jumps) for run in own),
            "Seeds": _seeds(own),
        }
        for safeguard, own in groups(runs, "safeguard").items()
    )


def largest_jump(runs: Sequence[UnstableRun]) -> str:
    """Return the jump's peak relative to the level before; a dash without a jump."""
    largest = max((run.largest_jump for run in runs if run.largest_jump is not None), default=None)
    if largest is None:
        return "-"
    return f"{largest:.1f} x" if largest < 1e4 else f"{formatting.number(largest)} x"


def exposure(runs: Sequence[ExposureRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Trained with": formatting.visible(way),
            "Held-out loss": str(RoundedEstimate.of(run.held_out_loss for run in own)),
            "KL, true prefixes": str(RoundedEstimate.of(run.true_prefixes for run in own)),
            "KL, own prefixes": str(RoundedEstimate.of(run.own_prefixes for run in own)),
            "Exposure bias": str(RoundedEstimate.of(run.bias for run in own)),
            "True inputs": str(RoundedEstimate.of(run.true_inputs for run in own)),
            "Seeds": _seeds(own),
        }
        for way, own in groups(runs, "trained_with").items()
    )


def temperature(runs: Sequence[TemperatureRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Temperature": formatting.number(temperature),
            "Loss": str(RoundedEstimate.of(run.loss for run in own)),
            "Entropy of the samples": str(RoundedEstimate.of(run.entropy for run in own)),
            "True token": str(RoundedEstimate.of(run.hits for run in own)),
            "Seeds": _seeds(own),
        }
        for temperature, own in groups(runs, "temperature").items()
    )


def calibration(runs: Sequence[CalibrationRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Label smoothing": formatting.number(smoothing),
            "Loss": str(RoundedEstimate.of(run.loss for run in own)),
            "Calibration error": str(RoundedEstimate.of(run.error for run in own)),
            "Loss where surest": str(RoundedEstimate.of(run.surest_loss for run in own)),
            "Loss floor": formatting.number(own[0].loss_floor),
            "Seeds": _seeds(own),
        }
        for smoothing, own in groups(runs, "smoothing").items()
    )


def abilities(runs: Sequence[AbilityRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Kind": formatting.visible(kind),
            "Loss untrained": str(RoundedEstimate.of(run.first_loss for run in own)),
            "Loss trained": str(RoundedEstimate.of(run.last_loss for run in own)),
            "Seeds": _seeds(own),
        }
        for kind, own in groups(runs, "kind").items()
    )


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
            "Model": f"{run.name} (estimated)" if run.is_estimated else run.name,
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


def _or_dash(estimate: RoundedEstimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def _seeds(runs: Sequence[object]) -> str:
    return formatting.count(len(runs))
