"""What the time of a run was used for, as one bar. Pure."""

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.goodput import NAMES
from dashboard.figures.style import BLUE, GREEN, GREY, OLIVE, ORANGE, PURPLE, SKY, VERMILLION, base_figure
from db.goodput.accounting import Breakdown, TimeCause

VIOLET, SILVER = "#7A4FB5", "#BDBDBD"
COLOURS = {
    TimeCause.TRAINING: GREEN,
    TimeCause.SPIKE: VERMILLION,
    TimeCause.RESTART: ORANGE,
    TimeCause.REWIND: PURPLE,
    TimeCause.CHECKPOINT: SKY,
    TimeCause.EVALUATION: BLUE,
    TimeCause.WAITING: OLIVE,
    TimeCause.HANG: VIOLET,
    TimeCause.STARTUP: SILVER,
    TimeCause.OTHER: GREY,
}
HEIGHT = 132
"""Pixels; the legend is above the bar."""


def goodput_figure(breakdown: Breakdown) -> go.Figure | None:
    """The share of each cause that took any time, in a bar from 0 to 100 %. None while no time has passed."""
    if breakdown.total <= 0:
        return None
    figure = base_figure(height=HEIGHT, top=52, bottom=40, barmode="stack", bargap=0.1)
    for cause, seconds in breakdown.seconds.items():
        if seconds <= 0:
            continue
        share = formatting.percent(breakdown.share(cause))
        figure.add_bar(
            x=[100 * seconds / breakdown.total],
            y=[""],
            orientation="h",
            name=f"{NAMES[cause]} {share}",
            marker={"color": COLOURS[cause]},
            hovertemplate=f"{NAMES[cause]}: {formatting.duration(seconds)} ({share})<extra></extra>",
        )
    figure.update_layout(
        margin={"l": 12},
        hovermode="closest",
        xaxis={"range": [0, 100], "ticksuffix": " %", "zeroline": False, "fixedrange": True},
        yaxis={"showticklabels": False, "fixedrange": True},
    )
    return figure
