"""The ground of a run's figure: one panel per metric over one axis of steps.

Every panel has a second, invisible axis 0..1 for marks: they keep their height whatever the values do.
Colours are Okabe and Ito's, which people with any of the usual colour vision deficiencies tell apart, and each
kind of mark also has a shape of its own. They are readable on white and on near-black; text and grid follow the
page's theme (figure.js).
"""

from dataclasses import dataclass

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import words

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#2F86C4", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"

LOG_AXES = frozenset({"perplexity", "grad_norm"})
TICKS = {"lr": ".3~g", "perplexity": "~s", "tokens": "~s", "batch_index": "~s"}
FIRST_PANEL, PANEL, GAP = 260, 140, 44
"""Heights in pixels; the gap holds the next panel's title."""
TOP, BOTTOM = 84, 46
"""Margins in pixels: legend and the incidents' names above, the steps below."""


@dataclass(frozen=True, slots=True)
class Panel:
    metric: str
    position: int
    bottom: float
    top: float
    """Share of the drawing's height."""

    @property
    def values(self) -> str:
        """Name of the axis of the values, as traces write it."""
        return "y" if self.position == 0 else f"y{self.position + 1}"

    @property
    def marks(self) -> str:
        """Name of the axis 0..1."""
        return f"y{self.position + 101}"


def stack(metrics: list[str]) -> tuple[int, list[Panel]]:
    """Height of the whole figure in pixels, and the panels from the top down."""
    heights = [FIRST_PANEL] + [PANEL] * (len(metrics) - 1)
    inside = sum(heights) + GAP * (len(heights) - 1)
    panels, top = [], float(inside)
    for position, (metric, height) in enumerate(zip(metrics, heights, strict=False)):
        panels.append(Panel(metric, position, max(0.0, (top - height) / inside), top / inside))
        top -= height + GAP
    return inside + TOP + BOTTOM, panels


def lay_out(figure: go.Figure, panels: list[Panel], height: int, window: tuple[int, int] | None, revision: str) -> None:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 58, "r": 12, "t": TOP, "b": BOTTOM},
        uirevision=revision,
        hovermode="x unified",
        hoversubplots="axis",
        hoverdistance=30,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top"},
        font={"size": 13},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        xaxis={
            "title": {"text": "Step", "standoff": 8},
            "anchor": panels[-1].values if panels else "y",
            "range": window,
            "tickformat": ",d",
            "hoverformat": ",d",
            "unifiedhovertitle": {"text": "step %{x:,d}"},
            "showgrid": True,
            "zeroline": False,
            "showspikes": True,
            "spikemode": "across",
            "spikethickness": 1,
            "spikedash": "dot",
            "spikecolor": GREY,
        },
    )
    for panel in panels:
        _lay_out_one(figure, panel)


def _lay_out_one(figure: go.Figure, panel: Panel) -> None:
    domain = [panel.bottom, panel.top]
    values = {
        "domain": domain,
        "type": "log" if panel.metric in LOG_AXES else "linear",
        "tickformat": TICKS.get(panel.metric, "~g"),
        "nticks": 6 if panel.position == 0 else 4,
        "zeroline": False,
        "showgrid": True,
    }
    hidden = {"domain": domain, "range": [0, 1], "overlaying": panel.values, "visible": False, "fixedrange": True}
    figure.update_layout({_axis_key(panel.values): values, _axis_key(panel.marks): hidden})
    scale = " - log scale" if panel.metric in LOG_AXES else ""
    figure.add_annotation(
        text=f"<b>{words.metric_title(panel.metric)}</b>{scale}",
        x=0,
        xref="paper",
        xanchor="left",
        y=panel.top,
        yref="paper",
        yanchor="bottom",
        yshift=4,
        showarrow=False,
    )


def _axis_key(axis: str) -> str:
    return "yaxis" + axis.removeprefix("y")


def faint(color: str, alpha: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
