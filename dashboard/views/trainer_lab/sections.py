"""Sections of the Trainer lab: for each sweep a sentence about the plot, the command, the plot and the table. Pure."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.lab_results import LabResults, ScalingRun
from dashboard.data.power_law import fit, sizes
from dashboard.views.trainer_lab import figure, tables
from db.cli.command_engine import as_typed_here

RECIPE = re.compile("[a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One figure."""

    name: str
    """Unique on the page."""
    sentence: str
    """Content in one sentence, in Markdown."""
    make: Callable[[], go.Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    title: str
    plots: Sequence[Plot]
    make_table: Callable[[], pd.DataFrame]
    note: str = ""
    """Below the table, in Markdown."""
    command: str = ""
    """Command that measured it; empty for published numbers."""


def sections(results: LabResults) -> Iterator[Section]:
    """Return the sections of the sweeps that have results, and of published runs."""
    makers = (
        (results.switches, _switches),
        (results.scaling, _scaling),
        (results.unstable, _unstable),
        (results.exposure, _exposure),
        (results.temperature, _temperature),
        (results.gradients, _gradients),
        (results.calibration, _calibration),
        (results.abilities, _abilities),
    )
    for runs, make in makers:
        if runs:
            yield make(results)
    yield _compute(results)


def _switches(results: LabResults) -> Section:
    runs = results.switches
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    return Section(
        title="Switches: loss, perplexity and bits",
        plots=[
            Plot(
                name="switches",
                sentence="Each point is the held-out loss of a recipe as the length of the compressed text, with its "
                "perplexity, exp(loss in nats per token), beside it.",
                make=lambda: figure.switches_figure(runs),
            )
        ],
        make_table=lambda: tables.switches(runs),
        note="Bits per byte and per character compare across tokenizers; perplexity and bits per token do not. "
        "The standard error of a single seed is that of its held-out loss over documents.",
        command=command("", [run.seed for run in runs], recipes=recipes),
    )


def _scaling(results: LabResults) -> Section:
    runs = results.scaling
    return Section(
        title="Loss against compute",
        plots=[
            Plot(
                name="scaling",
                sentence="Each point is the held-out loss of a model size over its training compute; on these two "
                "log axes, a power law is a straight line.",
                make=lambda: figure.scaling_figure(runs),
            )
        ],
        make_table=lambda: tables.scaling(runs),
        note=_law_sentence(runs),
        command=command("--scaling", [run.seed for run in runs]),
    )


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


def _unstable(results: LabResults) -> Section:
    runs = results.unstable
    return Section(
        title="What prevents spikes",
        plots=[
            Plot(
                name="steps-lost",
                sentence="Steps during which the loss of the unstable recipe was above the level from which it had "
                "jumped, with one safeguard at a time.",
                make=lambda: figure.steps_lost_figure(runs),
            ),
            Plot(
                name="final-loss",
                sentence="The loss at the end of the same runs.",
                make=lambda: figure.final_loss_figure(runs),
            ),
        ],
        make_table=lambda: tables.unstable(runs),
        note="The largest jump is a peak relative to the level before it. What counts as a jump, and where it ends, is "
        "one rule for all runs: `trainer/lab/jumps.py`.",
        command=command("--unstable", [run.seed for run in runs]),
    )


def _exposure(results: LabResults) -> Section:
    runs = results.exposure
    floors = ", ".join(dict.fromkeys(formatting.number(run.loss_floor) for run in runs))
    return Section(
        title="Exposure bias",
        plots=[
            Plot(
                name="exposure",
                sentence="How far each model is from a Markov chain, its source, after true prefixes and after its "
                "own ones; the distance between the two points is the exposure bias.",
                make=lambda: figure.exposure_figure(runs),
            )
        ],
        make_table=lambda: tables.exposure(runs),
        note=f"The loss of the chain itself, the loss floor, is {floors} nats per token.",
        command=command("--exposure", [run.seed for run in runs]),
    )


def _temperature(results: LabResults) -> Section:
    runs = results.temperature
    return Section(
        title="Temperature",
        plots=[
            Plot(
                name="temperature",
                sentence="The entropy of what is sampled changes with the temperature; the loss, which is defined at "
                "temperature 1, never does.",
                make=lambda: figure.temperature_figure(runs),
            )
        ],
        make_table=lambda: tables.temperature(runs),
        note="*True token* is the mean probability that a sample is the true one.",
        command=command("--temperature", [run.seed for run in runs]),
    )


def _gradients(results: LabResults) -> Section:
    rows = results.gradients
    return Section(
        title="Why squared error fails",
        plots=[
            Plot(
                name="gradients",
                sentence="How hard each loss pushes the logit of the true token, over the probability that the model "
                "gives to it.",
                make=lambda: figure.gradients_figure(rows),
            )
        ],
        make_table=lambda: tables.gradients(rows),
        note="*One wrong token*: it has all other probability. *Spread*: all wrong tokens are equally likely.",
        command=command("--gradients", []),
    )


def _calibration(results: LabResults) -> Section:
    runs = results.calibration
    return Section(
        title="Label smoothing and calibration",
        plots=[],
        make_table=lambda: tables.calibration(runs),
        note="The calibration error is the mean distance of the probability of the likeliest token and how often it is "
        "right. The loss floor is that of a model which predicts the smoothed targets.",
        command=command("--calibration", [run.seed for run in runs]),
    )


def _abilities(results: LabResults) -> Section:
    runs = results.abilities
    return Section(
        title="One objective, many abilities",
        plots=[],
        make_table=lambda: tables.abilities(runs),
        note="Held-out loss by kind of token, of a model that was only ever asked for the next one.",
        command=command("--abilities", [run.seed for run in runs]),
    )


def _compute(results: LabResults) -> Section:
    own = " The smallest and the largest model of the sweep stand above them." if results.scaling else ""
    return Section(
        title="Compute of published runs",
        plots=[
            Plot(
                name="published",
                sentence=f"Training FLOPs of published runs on a log axis; estimates are marked.{own}",
                make=lambda: figure.compute_figure(results.scaling),
            )
        ],
        make_table=tables.published,
        note="About 20 tokens per parameter are compute-optimal (Hoffmann et al. 2022, arXiv:2203.15556).",
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
