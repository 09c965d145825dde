"""Style of every figure: colours, the layout that a figure starts from, and the axes of metrics. Pure.

Colours are Okabe and Ito's, which people with any of the usual colour vision deficiencies tell apart. They are
readable on white and on near-black; text, grid and background follow the page's theme (component.js).
"""

import math
from functools import cache
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from lossguard.vocabulary.metrics import BY_NAME

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#2F86C4", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
ORANGE, SKY, OLIVE = "#E69F00", "#56B4E9", "#A79A00"

PANEL_COLOURS = (BLUE, "#8A63D2", "#17A2A2", "#B0722A", SKY)
"""Colours of the live line in the panels of a run: hover texts show the values of all panels at once."""
RUN_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, OLIVE, GREY)
"""Colours of several runs in one figure, in this order; lines beyond the eighth need a dash too."""


def base_figure(*, height: int, top: int = 36, bottom: int = 46, revision: str = "", **layout: Any) -> go.Figure:
    """An empty figure of `height` pixels. A viewer's zoom is kept as long as `revision` stays the same.

    More of its `layout` is given here rather than later: plotly validates everything again at every change.
    """
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 58, "r": 12, "t": top, "b": bottom},
            "uirevision": revision,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "traceorder": "grouped",
            },
            "font": {"size": 13},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
            **layout,
        }
    )


def scatter(
    axis: str, x: Any, y: Any, name: str, *, mode: str = "lines", hover: str = "", **more: Any
) -> dict[str, Any]:
    """A trace on the y axis `axis`, as plotly's dictionary; `hover` is a template of plotly's."""
    trace = {"type": "scatter", "x": x, "y": y, "yaxis": axis, "name": name, "legendgroup": name, "mode": mode}
    return trace | ({"hovertemplate": f"{hover}<extra></extra>"} if hover else {}) | more


DIGITS = {".3~g": 3}
"""Significant digits of the formats that name a number of them."""
MAX_FORMATTED = 1e15
"""Smallest value whose metric's format, such as a percentage, would write more digits than there is room for."""


def metric_axis(metric: str, *, log: bool, largest: float) -> dict[str, Any]:
    """Scale and ticks of the axis of a metric's values; `largest` is the size of the largest one.

    Ticks that are nearer to each other than the format can tell apart have more digits, also after a zoom.
    """
    written = BY_NAME[metric].tick_format if metric in BY_NAME and largest < MAX_FORMATTED else "~g"
    axis = {"type": "log" if log else "linear", "tickformat": written, "zeroline": False, "showgrid": True}
    if log or not largest:
        return axis
    digits = DIGITS.get(written, 6)  # as d3 writes them without a number
    finest = 0.01 if "%" in written else 10.0 ** max(math.floor(math.log10(largest)) - digits + 1, -300)
    limit, fine = finest * 0.99, f".9~{written[-1]}"
    stops = [{"dtickrange": [None, limit], "value": fine}, {"dtickrange": [limit, None], "value": written}]
    return axis | {"tickformatstops": stops}


NUMBER, LARGE_NUMBER = ".4~g", ",.4~r"
"""d3-formats of a value in a hover text: four significant digits, as `formatting.number` writes them in tables."""


def number_format(metric: str, largest: float = 0.0) -> str:
    """The d3-format of values of this metric up to `largest`: four significant digits, in its unit."""
    unit = BY_NAME[metric].tick_format[-1] if metric in BY_NAME and largest < MAX_FORMATTED else "g"
    return {"s": ".4~s", "%": ".4~p"}.get(unit, LARGE_NUMBER if 1e4 <= largest < 1e9 else NUMBER)


@cache
def with_alpha(color: str, alpha: float) -> str:
    """A colour "#rrggbb" with an opacity 0..1, as CSS writes it."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
