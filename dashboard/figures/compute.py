"""A run's training compute beside that of published runs, and the use of its time by its causes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.facts import Compute
from dashboard.figures.style import BLUE, GREEN, GREY, OLIVE, ORANGE, PURPLE, SKY, VERMILLION, base_figure
from db.goodput.accounting import Breakdown, TimeCause

CHINCHILLA = 20.0
"""Compute-optimal tokens per parameter, approximately (Hoffmann et al. 2022, arXiv:2203.15556)."""


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A training run, as its authors published it or as others estimated it."""

    name: str
    source: str
    parameters: float | None
    """Number of parameters; None if it was not published."""
    tokens: float | None
    """Tokens of the whole training; None if they were not published."""
    reported_flops: float | None = None
    """FLOPs as published or estimated; None if only the size is known."""
    is_estimated: bool = False
    """True if a number is an estimate of others, or of ours."""

    @property
    def label(self) -> str:
        return f"{self.name} (estimated)" if self.is_estimated else self.name

    @property
    def flops(self) -> float:
        """6ND where both are known, otherwise what was reported."""
        if self.parameters is None or self.tokens is None:
            assert self.reported_flops is not None
            return self.reported_flops
        return 6 * self.parameters * self.tokens


PUBLISHED = (
    PublishedRun(
        "GPT-2 1.5B, one pass",
        "Radford et al. 2019: 40 GB of text; 4 bytes a token is an estimate, the number of passes is unknown",
        1.542e9,
        10e9,
        is_estimated=True,
    ),
    PublishedRun("GPT-3 175B", "Brown et al. 2020, arXiv:2005.14165, table D.1", 175e9, 300e9, 3.14e23),
    PublishedRun(
        "Chinchilla 70B", "Hoffmann et al. 2022, arXiv:2203.15556: the budget of Gopher", 70e9, 1.4e12, 5.76e23
    ),
    PublishedRun("Llama 2 7B", "Touvron et al. 2023, arXiv:2307.09288, table 1", 7e9, 2e12),
    PublishedRun("Llama 2 70B", "Touvron et al. 2023, arXiv:2307.09288, table 1", 70e9, 2e12),
    PublishedRun("Llama 3 8B", "Meta 2024, model card: over 15 trillion tokens", 8e9, 15e12),
    PublishedRun("Llama 3 70B", "Meta 2024, model card: over 15 trillion tokens", 70e9, 15e12),
    PublishedRun("Llama 3.1 405B", "Grattafiori et al. 2024, arXiv:2407.21783", 405e9, 15.6e12, 3.8e25),
    PublishedRun(
        "GPT-4",
        "Epoch AI's estimate; the technical report (arXiv:2303.08774) gives neither size nor tokens",
        None,
        None,
        2.1e25,
        is_estimated=True,
    ),
)
"""Published runs in the order of their publication."""


ROW_HEIGHT, CAUSE_HEIGHT = 39, 24
"""Pixels of a run, and of a cause."""


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
    rows = [*own, *((each.label, each.flops, GREY, "square") for each in PUBLISHED)][::-1]
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


CAUSE_NAMES: Mapping[TimeCause, str] = {
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
    return max(0.0, breakdown.total - breakdown.seconds[TimeCause.TRAINING])


VIOLET, SILVER = "#7A4FB5", "#BDBDBD"
CAUSE_COLOURS = {
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


def goodput_figure(breakdown: Breakdown) -> go.Figure | None:
    """Draw a row for each cause that took any time; its bar begins where the one above ends, and the last one at 100 %.

    None while no time has passed.
    """
    causes = breakdown.largest_first()
    if not causes:
        return None
    shares = [100 * breakdown.seconds[cause] / breakdown.total for cause in causes]
    times = [formatting.duration(breakdown.seconds[cause]) for cause in causes]
    figure = base_figure(height=CAUSE_HEIGHT * len(causes) + 48, top=4, bottom=32, showlegend=False)
    figure.add_bar(
        x=shares,
        y=[
            f"{CAUSE_NAMES[cause]} {formatting.percent(share / 100)}"
            for cause, share in zip(causes, shares, strict=True)
        ],
        base=[sum(shares[:index]) for index in range(len(shares))],
        orientation="h",
        marker={"color": [CAUSE_COLOURS[cause] for cause in causes]},
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
