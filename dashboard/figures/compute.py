"""A run's training compute, compared with that of published runs. Pure."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.compute import CHINCHILLA, PUBLISHED, Compute, PublishedRun
from dashboard.figures.style import BLUE, GREEN, GREY, base_figure

ROW_HEIGHT = 39
"""Pixels."""


def compute_figure(compute: Compute) -> go.Figure | None:
    """Training FLOPs on a log axis: this run, the compute-optimal amount for its parameters, and published runs.

    None without parameters and tokens.
    """
    if not compute.flops or not compute.parameters:
        return None
    optimal = 6 * CHINCHILLA * compute.parameters**2
    return _beside_published(
        [
            ("this run", compute.flops, BLUE, "circle"),
            (f"{CHINCHILLA:g} tokens per parameter", optimal, GREEN, "diamond-open"),
        ]
    )


def published_figure(flops: Mapping[str, float]) -> go.Figure:
    """Training FLOPs of runs by name, above published ones."""
    return _beside_published([(name, value, BLUE, "circle") for name, value in flops.items()])


def _beside_published(own: Sequence[tuple[str, float, str, str]]) -> go.Figure:
    """`own`: name, FLOPs, colour and symbol of each."""
    rows = [*own, *((_label(each), each.flops, GREY, "square") for each in PUBLISHED)][::-1]
    figure = base_figure(height=ROW_HEIGHT * len(rows) + 54, top=8, bottom=46)
    figure.add_scatter(
        x=[flops for _, flops, _, _ in rows],
        y=[label for label, _, _, _ in rows],
        mode="markers+text",
        text=[formatting.power_of_ten(flops) for _, flops, _, _ in rows],
        textposition=["middle left" if flops > 1e22 else "middle right" for _, flops, _, _ in rows],
        marker={"size": 11, "color": [color for *_, color, _ in rows], "symbol": [symbol for *_, symbol in rows]},
        hovertemplate="%{y}: %{x:.3e} FLOPs<extra></extra>",
    )
    figure.update_layout(
        margin={"l": 190},
        showlegend=False,
        hovermode="closest",
        xaxis={
            "type": "log",
            "title": {"text": "Training FLOPs (6ND)", "standoff": 8},
            "exponentformat": "power",
            "dtick": 3,
            "zeroline": False,
        },
        yaxis={"showgrid": True, "zeroline": False, "automargin": True},
    )
    return figure


def _label(run: PublishedRun) -> str:
    return f"{run.name} (estimated)" if run.is_estimated else run.name
