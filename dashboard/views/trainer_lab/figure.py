"""The figures of the Trainer lab. Pure.

A point that an axis cannot show (not finite, or not above 0 on a log axis) is left out; the tables have its value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.trainer.lab_results import (
    ExposureRun,
    Gradients,
    PowerLaw,
    RoundedEstimate,
    ScalingRun,
    Size,
    SwitchRun,
    TemperatureRun,
    UnstableRun,
    fit,
    groups,
    sizes,
)
from dashboard.figures.compute import published_figure
from dashboard.figures.style import BLUE, GREEN, GREY, VERMILLION, base_figure
from dashboard.figures.value_axis import LARGEST, SMALLEST
from dashboard.views.trainer_lab import tables

ROW_HEIGHT = 32  # pixels
CURVE_HEIGHT = 360  # pixels
MAX_ROWS = 60
"""Rows of a figure; the tables have all of them."""
MAX_LETTERS = 26
"""Maximum letters of the name of a row."""
NUM_GRID = 40
"""Points of a drawn law."""


@dataclass(frozen=True, slots=True)
class Dots:
    """One estimate per row, of one colour."""

    name: str
    estimates: Sequence[RoundedEstimate]
    color: str
    symbol: str = "circle"
    texts: Sequence[str] = ()
    """Written beside the points."""


def switches_figure(runs: Sequence[SwitchRun]) -> go.Figure:
    """Bits per character of each recipe, bits per token where the data is not text; with the perplexity beside it."""
    by_recipe = groups(runs, "recipe")
    characters = [tables.bits_per_character(own) for own in by_recipe.values()]
    known = [each for each in characters if each is not None]
    is_text = len(known) == len(characters)
    estimates = known if is_text else [tables.bits_per_token(own) for own in by_recipe.values()]
    title = "Held-out bits per character" if is_text else "Held-out bits per token"
    texts = [f"perplexity {formatting.number(tables.perplexity(own).mean)}" for own in by_recipe.values()]
    return _rows_figure(list(by_recipe), [Dots(title, estimates, BLUE, texts=texts)], title=title)


def steps_lost_figure(runs: Sequence[UnstableRun]) -> go.Figure:
    """Draw the steps that each safeguard lost; the number of jumps stands beside them."""
    by_safeguard = groups(runs, "safeguard")
    lost = _means(by_safeguard, "steps_lost")
    texts = [f"{formatting.two_digits(each.mean)} jumps" for each in _means(by_safeguard, "num_jumps")]
    return _rows_figure(list(by_safeguard), [Dots("steps lost", lost, VERMILLION, texts=texts)], title="Steps lost")


def final_loss_figure(runs: Sequence[UnstableRun]) -> go.Figure:
    by_safeguard = groups(runs, "safeguard")
    dots = [Dots("final loss", _means(by_safeguard, "final_loss"), BLUE)]
    return _rows_figure(list(by_safeguard), dots, title="Final loss (nats per token)", is_log=True)


def exposure_figure(runs: Sequence[ExposureRun]) -> go.Figure:
    by_way = groups(runs, "trained_with")
    dots = [
        Dots("after true prefixes", _means(by_way, "true_prefixes"), BLUE),
        Dots("after its own prefixes", _means(by_way, "own_prefixes"), VERMILLION, symbol="diamond"),
    ]
    return _rows_figure(list(by_way), dots, title="KL, nats per token")


def scaling_figure(runs: Sequence[ScalingRun]) -> go.Figure:
    by_size = sizes(runs)
    figure = _curves_figure("Training FLOPs (6ND)", "Held-out loss (nats per token)", is_log_x=True, is_log_y=True)
    points = [(size.flops, size.loss) for size in by_size]
    figure.add_scatter(**_estimates("held-out loss", points, BLUE, mode="markers"))
    fitted = fit(by_size)
    if fitted is not None:
        figure.add_scatter(**_law("fitted law", fitted.law, by_size, GREY, "solid"))
        figure.add_scatter(**_law("law of the smaller sizes", fitted.law_of_smaller, by_size, GREEN, "dash"))
    figure.update_xaxes(_narrow_ticks(figure))
    return figure


def temperature_figure(runs: Sequence[TemperatureRun]) -> go.Figure:
    by_temperature = dict(sorted(groups(runs, "temperature").items()))
    losses, entropies = (zip(by_temperature, _means(by_temperature, name), strict=True) for name in ("loss", "entropy"))
    figure = _curves_figure("Temperature", "Nats per token", is_log_x=True)
    figure.add_scatter(**_estimates("loss", list(losses), BLUE))
    figure.add_scatter(**_estimates("entropy of the samples", list(entropies), VERMILLION, dash="dash"))
    return figure


def gradients_figure(rows: Sequence[Gradients]) -> go.Figure:
    figure = _curves_figure("P of the true token", "Gradient at its logit", is_log_x=True, is_log_y=True)
    lines = (
        ("cross-entropy", "cross_entropy", BLUE, "solid"),
        ("squared error, one wrong token", "squared_error_one_wrong", VERMILLION, "dash"),
        ("squared error, spread", "squared_error_spread", GREEN, "dot"),
    )
    rows = sorted(rows, key=lambda row: row.probability)
    for name, field, color, dash in lines:
        points = [(row.probability, RoundedEstimate(getattr(row, field), math.nan)) for row in rows]
        figure.add_scatter(**_estimates(name, points, color, dash=dash, is_log_y=True))
    return figure


def compute_figure(runs: Sequence[ScalingRun]) -> go.Figure:
    """The largest and the smallest size of the sweep, above published runs."""
    by_size = sizes(runs)
    ends = {"largest of the lab": by_size[-1], "smallest of the lab": by_size[0]} if by_size else {}
    return published_figure({name: size.flops for name, size in ends.items()})


def _means(groups: Mapping[Any, Sequence[Any]], field: str) -> list[RoundedEstimate]:
    return [RoundedEstimate.of(getattr(run, field) for run in own) for own in groups.values()]


def _rows_figure(names: Sequence[str], dots: Sequence[Dots], *, title: str, is_log: bool = False) -> go.Figure:
    """One row per name, the first one on top."""
    num_rows = min(len(names), MAX_ROWS)
    has_legend = len(dots) > 1
    figure = base_figure(
        height=ROW_HEIGHT * num_rows + (90 if has_legend else 66), top=36 if has_legend else 12, bottom=52
    )
    for each in dots:
        shown = [row for row in range(num_rows) if _is_drawable(each.estimates[row].mean, is_log=is_log)]
        estimates = [each.estimates[row] for row in shown]
        figure.add_scatter(
            name=each.name,
            x=[estimate.mean for estimate in estimates],
            y=shown,
            error_x=_errors(estimates, is_log=is_log),
            mode="markers+text" if each.texts else "markers",
            text=[each.texts[row] for row in shown] if each.texts else None,
            textposition=_towards_the_middle([estimate.mean for estimate in estimates]),
            textfont={"size": 11},
            cliponaxis=False,
            marker={"size": 9, "color": each.color, "symbol": each.symbol},
            customdata=[str(estimate) for estimate in estimates],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_layout(
        margin={"l": 190},
        showlegend=has_legend,
        hovermode="closest",
        xaxis=_axis(title, is_log=is_log) | (_narrow_ticks(figure) if is_log else {}),
        yaxis={
            "tickvals": list(range(num_rows)),
            "ticktext": [
                formatting.escape_plotly(name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 2]}..")
                for name in names[:num_rows]
            ],
            "range": [num_rows - 0.4, -0.8],
            "showgrid": True,
            "zeroline": False,
        },
    )
    return figure


def _towards_the_middle(values: Sequence[float]) -> list[str]:
    """Return places for the text of each point, so that it does not leave the plot."""
    middle = (min(values) + max(values)) / 2 if values else 0.0
    return ["top left" if value > middle else "top right" for value in values]


def _narrow_ticks(figure: go.Figure) -> dict[str, Any]:
    """Ticks of a log axis of x at 1, 2 and 5, written out, where it spans neither too little nor too much for them."""
    values = [value for trace in figure.data for value in trace.x]
    if not values or not 3.0 <= max(values) / min(values) < 300.0:
        return {}
    return {"dtick": "D2", "tickformat": "~g" if max(values) < 1e6 else ".0e"}


def _curves_figure(x: str, y: str, *, is_log_x: bool = False, is_log_y: bool = False) -> go.Figure:
    return base_figure(
        height=CURVE_HEIGHT,
        bottom=54,
        hovermode="closest",
        showlegend=True,
        xaxis=_axis(x, is_log=is_log_x),
        yaxis=_axis(y, is_log=is_log_y),
    )


def _axis(title: str, *, is_log: bool) -> dict[str, Any]:
    standoff = 14 if is_log else 8  # below powers of ten
    axis = {"type": "log" if is_log else "linear", "title": {"text": title, "standoff": standoff}, "zeroline": False}
    return axis | ({"exponentformat": "power"} if is_log else {})


def _estimates(
    name: str,
    points: Sequence[tuple[float, RoundedEstimate]],
    color: str,
    *,
    mode: str = "lines+markers",
    dash: str = "solid",
    is_log_y: bool = False,
) -> dict[str, Any]:
    """A trace, on a log axis of x."""
    shown = [(x, y) for x, y in points if _is_drawable(x, is_log=True) and _is_drawable(y.mean, is_log=is_log_y)]
    estimates = [y for _, y in shown]
    return {
        "name": name,
        "x": [x for x, _ in shown],
        "y": [y.mean for y in estimates],
        "error_y": _errors(estimates, is_log=is_log_y),
        "mode": mode,
        "marker": {"size": 8, "color": color},
        "line": {"color": color, "dash": dash, "width": 1.8},
        "customdata": [str(y) for y in estimates],
        "hovertemplate": f"%{{x:.3~g}}: {name} %{{customdata}}<extra></extra>",
    }


def _law(name: str, law: PowerLaw, by_size: Sequence[Size], color: str, dash: str) -> dict[str, Any]:
    grid = np.geomspace(by_size[0].flops, by_size[-1].flops, NUM_GRID).tolist()
    points = [(compute, law(compute)) for compute in grid]
    shown = [(x, y) for x, y in points if _is_drawable(y, is_log=True)]
    return {
        "name": name,
        "x": [x for x, _ in shown],
        "y": [y for _, y in shown],
        "mode": "lines",
        "line": {"color": color, "dash": dash, "width": 1.8},
        "hovertemplate": f"{name}: %{{y:.4~g}}<extra></extra>",
    }


def _errors(estimates: Sequence[RoundedEstimate], *, is_log: bool) -> dict[str, Any]:
    """Bars of one standard error. On a log axis a bar that reaches 0 has no lower half."""
    errors = [each.standard_error if _is_drawable(each.standard_error, is_log=False) else 0.0 for each in estimates]
    lower = [0.0 if is_log and error >= each.mean else error for each, error in zip(estimates, errors, strict=True)]
    return {"type": "data", "symmetric": False, "array": errors, "arrayminus": lower, "thickness": 1.4, "width": 4}


def _is_drawable(value: float, *, is_log: bool) -> bool:
    """True if plotly.js can draw it on such an axis."""
    size = abs(value)
    return (size == 0 and not is_log) or (SMALLEST <= size <= LARGEST and (value > 0 or not is_log))
