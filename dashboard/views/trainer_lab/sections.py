"""Sections of the Trainer lab: for each sweep a sentence about the plot, the command, the plot and the table. Pure."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.trainer.lab_results import ExposureRun, LabResults, ScalingRun, fit, sizes
from dashboard.views.trainer_lab import figure, tables
from db.cli.command_engine import as_typed_here

RECIPE = re.compile("[a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class Plot:
    name: str
    """Unique on the page."""
    sentence: str
    """Content in one sentence, in Markdown."""
    make: Callable[[Sequence[Any]], go.Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The figures, table and note of the runs of a sweep."""

    name: str
    """Name of its field in LabResults; of the published runs, none."""
    title: str
    plots: Sequence[Plot] = ()
    table: Callable[[Sequence[Any]], pd.DataFrame]
    note: str = ""
    """Below the table, in Markdown."""
    note_of: Callable[[Sequence[Any]], str] | None = None
    """Makes the note, where it depends on the runs."""
    option: str = ""
    """Option of the command that measures the sweep."""
    command: str = ""
    """Command that measured these runs; empty for published numbers."""
    runs: Sequence[Any] = ()


def _law_sentence(runs: Sequence[ScalingRun]) -> str:
    by_size = sizes(runs)
    fitted = fit(by_size)
    if fitted is None:
        return "There is no law: it needs at least three amounts of compute, and finite losses above 0."
    law, largest = fitted.law, by_size[-1]
    return (
        f"The fitted law is loss = {formatting.number(law.coefficient)} · C^-{formatting.number(law.exponent)}, with C "
        f"in FLOPs (6ND); the exponent over the seeds is {fitted.exponent}. A law through the "
        f"{len(by_size) - 1} smaller sizes predicts {formatting.number(fitted.law_of_smaller(largest.flops))} for the "
        f"largest one, which reached {largest.loss}."
    )


def _floors(runs: Sequence[ExposureRun]) -> str:
    floors = ", ".join(dict.fromkeys(formatting.number(run.loss_floor) for run in runs))
    return f"The loss of the chain itself, the loss floor, is {floors} nats per token."


SWEEPS = (
    Section(
        name="switches",
        title="Switches: loss, perplexity and bits",
        plots=[
            Plot(
                "switches",
                "Each point is the held-out loss of a recipe as the length of the compressed text, with its "
                "perplexity, exp(loss in nats per token), beside it.",
                figure.switches_figure,
            )
        ],
        table=tables.switches,
        note="Bits per byte and per character compare across tokenizers; perplexity and bits per token do not. "
        "The standard error of a single seed is that of its held-out loss over documents.",
    ),
    Section(
        name="scaling",
        title="Loss against compute",
        plots=[
            Plot(
                "scaling",
                "Each point is the held-out loss of a model size over its training compute; on these two "
                "log axes, a power law is a straight line.",
                figure.scaling_figure,
            )
        ],
        table=tables.scaling,
        note_of=_law_sentence,
        option="--scaling",
    ),
    Section(
        name="unstable",
        title="What prevents spikes",
        plots=[
            Plot(
                "steps-lost",
                "Steps during which the loss of the unstable recipe was above the level from which it had "
                "jumped, with one safeguard at a time.",
                figure.steps_lost_figure,
            ),
            Plot("final-loss", "The loss at the end of the same runs.", figure.final_loss_figure),
        ],
        table=tables.unstable,
        note="The largest jump is a peak relative to the level before it. What counts as a jump, and where it ends, is "
        "one rule for all runs: `trainer/lab/jumps.py`.",
        option="--unstable",
    ),
    Section(
        name="exposure",
        title="Exposure bias",
        plots=[
            Plot(
                "exposure",
                "How far each model is from a Markov chain, its source, after true prefixes and after its "
                "own ones; the distance between the two points is the exposure bias.",
                figure.exposure_figure,
            )
        ],
        table=tables.exposure,
        note_of=_floors,
        option="--exposure",
    ),
    Section(
        name="temperature",
        title="Temperature",
        plots=[
            Plot(
                "temperature",
                "The entropy of what is sampled changes with the temperature; the loss, which is defined at "
                "temperature 1, never does.",
                figure.temperature_figure,
            )
        ],
        table=tables.temperature,
        note="*True token* is the mean probability that a sample is the true one.",
        option="--temperature",
    ),
    Section(
        name="gradients",
        title="Why squared error fails",
        plots=[
            Plot(
                "gradients",
                "How hard each loss pushes the logit of the true token, over the probability that the model "
                "gives to it.",
                figure.gradients_figure,
            )
        ],
        table=tables.gradients,
        note="*One wrong token*: it has all other probability. *Spread*: all wrong tokens are equally likely.",
        option="--gradients",
    ),
    Section(
        name="calibration",
        title="Label smoothing and calibration",
        table=tables.calibration,
        note="The calibration error is the mean distance of the probability of the likeliest token and how often it is "
        "right. The loss floor is that of a model which predicts the smoothed targets.",
        option="--calibration",
    ),
    Section(
        name="abilities",
        title="One objective, many abilities",
        table=tables.abilities,
        note="Held-out loss by kind of token, of a model that was only ever asked for the next one.",
        option="--abilities",
    ),
)


def sections(results: LabResults) -> Iterator[Section]:
    """Return the sections of the sweeps that have results, and of published runs."""
    for sweep in SWEEPS:
        if runs := getattr(results, sweep.name):
            recipes = dict.fromkeys(run.recipe for run in runs) if sweep.name == "switches" else ()
            seeds = [run.seed for run in runs if sweep.name != "gradients"]
            note = sweep.note if sweep.note_of is None else sweep.note_of(runs)
            how = command(sweep.option, seeds, recipes=list(recipes))
            yield replace(sweep, runs=runs, note=note, command=how)
    own = " The smallest and the largest model of the sweep stand above them." if results.scaling else ""
    sentence = f"Training FLOPs of published runs on a log axis; estimates are marked.{own}"
    yield Section(
        name="published",
        title="Compute of published runs",
        plots=[Plot("published", sentence, figure.compute_figure)],
        table=lambda _: tables.published(),
        note="About 20 tokens per parameter are compute-optimal (Hoffmann et al. 2022, arXiv:2203.15556).",
        runs=results.scaling,
    )


def command(sweep: str, seeds: Sequence[int], *, recipes: Sequence[str] = ()) -> str:
    """The command that measures this sweep ("--scaling") or these recipes; without seeds that are not consecutive.

    Empty where a recipe has no usual name: viewers copy the command, and the file may be from anyone.
    """
    if not all(map(RECIPE.fullmatch, recipes)):
        return ""
    numbers = sorted(set(seeds))
    words = [as_typed_here("python -m trainer lab"), *recipes, *filter(None, [sweep])]
    if numbers and numbers == list(range(numbers[0], numbers[-1] + 1)):
        words += [*([] if numbers[0] == 1 else [f"--seed {numbers[0]}"]), f"--seeds {len(numbers)}"]
    return " ".join([*words, "--json"])
