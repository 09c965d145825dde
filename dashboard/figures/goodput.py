"""Use of a run's time by its causes: in words, and as a chart. Pure."""

from collections.abc import Mapping

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.figures.style import BLUE, GREEN, GREY, OLIVE, ORANGE, PURPLE, SKY, VERMILLION, base_figure
from db.goodput.accounting import Breakdown, TimeCause

NAMES: Mapping[TimeCause, str] = {
    TimeCause.TRAINING: "Training",
    TimeCause.SPIKE: "Spikes",
    TimeCause.RESTART: "Restarts",
    TimeCause.REWIND: "Rewinds of the loop",
    TimeCause.CHECKPOINT: "Checkpoints",
    TimeCause.EVALUATION: "Evaluation",
    TimeCause.WAITING: "Waiting for people",
    TimeCause.HANG: "Hangs",
    TimeCause.STARTUP: "Start-up",
    TimeCause.OTHER: "Other",
}


def largest_loss(breakdown: Breakdown) -> TimeCause | None:
    """Return the cause that took the most time, besides training; None if nothing was lost."""
    lost = [cause for cause in breakdown.largest_first() if cause is not TimeCause.TRAINING]
    return lost[0] if lost else None


def lost_seconds(breakdown: Breakdown) -> float:
    """Return the seconds that did not train the model."""
    return max(0.0, breakdown.total - breakdown.seconds[TimeCause.TRAINING])


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
ROW_HEIGHT = 24
"""Pixels."""


def goodput_figure(breakdown: Breakdown) -> go.Figure | None:
    """Draw a row for each cause that took any time; its bar begins where the one above ends, and the last one at 100 %.

    None while no time has passed.
    """
    causes = breakdown.largest_first()
    if not causes:
        return None
    shares = [100 * breakdown.seconds[cause] / breakdown.total for cause in causes]
    times = [formatting.duration(breakdown.seconds[cause]) for cause in causes]
    figure = base_figure(height=ROW_HEIGHT * len(causes) + 48, top=4, bottom=32, showlegend=False)
    figure.add_bar(
        x=shares,
        y=[f"{NAMES[cause]} {formatting.percent(share / 100)}" for cause, share in zip(causes, shares, strict=True)],
        base=[sum(shares[:index]) for index in range(len(shares))],
        orientation="h",
        marker={"color": [COLOURS[cause] for cause in causes]},
        customdata=times,
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )
    figure.update_layout(
        margin={"l": 178},
        hovermode="closest",
        xaxis={"range": [0, 100], "tickvals": [0, 25, 50, 75, 100], "ticksuffix": " %", "fixedrange": True},
        yaxis={"autorange": "reversed", "ticks": "", "fixedrange": True},
    )
    return figure
