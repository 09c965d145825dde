"""Figures out of values. Pure: nothing here reads a store or draws on a page.

`run_figure` stacks one panel per metric over one axis of steps, so that a zoom moves all of them and an incident's
band shows which signal moved first.
"""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import words
from dashboard.facts import Curve
from dashboard.marks import Marks, add_marks
from dashboard.panels import BLUE, GREY, PURPLE, Panel, faint, lay_out, stack
from db.queries import Series


def run_figure(
    curves: Mapping[str, Curve], marks: Marks, *, window: tuple[int, int] | None = None, revision: str = ""
) -> go.Figure:
    """One panel per metric, the first one larger. A viewer's zoom is kept as long as `revision` stays the same."""
    figure = go.Figure()
    height, panels = stack(list(curves))
    lay_out(figure, panels, height, window, revision)
    for panel in panels:
        _add_curve(figure, panel, curves[panel.metric])
    add_marks(figure, panels, marks)
    _name_each_once(figure)
    return figure


def _add_curve(figure: go.Figure, panel: Panel, curve: Curve) -> None:
    for branch in curve.discarded:
        _add_envelope(figure, panel, branch, GREY, "discarded branch")
        _add_line(figure, panel, branch, "discarded branch", color=GREY, width=1.4, opacity=0.9)
        _add_non_finite(figure, panel, branch, on="discarded branch")
    _add_envelope(figure, panel, curve.live, BLUE, "live line")
    _add_line(figure, panel, curve.live, "live line", color=BLUE, width=1.8, opacity=1.0)
    _add_non_finite(figure, panel, curve.live, on="live line")


def _add_line(
    figure: go.Figure, panel: Panel, series: Series, name: str, *, color: str, width: float, opacity: float
) -> None:
    """The mean of each bucket; a bucket without any finite value is a gap."""
    if not len(series):
        return
    label = words.metric_name(panel.metric) + (" (discarded)" if name == "discarded branch" else "")
    figure.add_scatter(
        x=series.first_step,
        y=_rounded(series.mean),
        yaxis=panel.values,
        name=name,
        legendgroup=name,
        mode="lines",
        line={"color": color, "width": width},
        opacity=opacity,
        customdata=_ranges(series),
        hovertemplate=f"{label} %{{y:.4~g}}%{{customdata}}<extra></extra>",
    )


def _ranges(series: Series) -> list[str]:
    """For the hover text: what a bucket of several steps spans, nothing for a single step."""
    return [
        "" if first == last or low is None else f" ({words.number(low)} .. {words.number(high)})"
        for first, last, low, high in zip(series.first_step, series.last_step, series.min, series.max, strict=True)
    ]


def _add_envelope(figure: go.Figure, panel: Panel, series: Series, color: str, group: str) -> None:
    """Least and largest value of each bucket, outlined: a spike of one step in a million stays a visible stroke."""
    kept = [index for index, low in enumerate(series.min) if low is not None]
    if all(series.first_step[index] == series.last_step[index] for index in kept):
        return
    for column, fill in ((series.min, None), (series.max, "tonexty")):
        figure.add_scatter(
            x=[series.first_step[index] for index in kept],
            y=_rounded([column[index] for index in kept]),
            yaxis=panel.values,
            name="smallest .. largest",
            legendgroup=group,
            showlegend=False,
            mode="lines",
            line={"color": faint(color, 0.55), "width": 0.8},
            fill=fill,
            fillcolor=faint(color, 0.22),
            hoverinfo="skip",
        )


def _add_non_finite(figure: go.Figure, panel: Panel, series: Series, *, on: str) -> None:
    """A cross on the panel's upper edge for each bucket with NaN or infinite values."""
    hit = [index for index, count in enumerate(series.non_finite) if count]
    if not hit:
        return
    figure.add_scatter(
        x=[series.first_step[index] for index in hit],
        y=[0.95] * len(hit),
        yaxis=panel.marks,
        name="not finite",
        legendgroup="not finite",
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"color": PURPLE, "width": 2.5}},
        customdata=[words.plural(series.non_finite[index], "value") for index in hit],
        hovertemplate=f"{words.metric_name(panel.metric)} not finite: %{{customdata}} ({on})<extra></extra>",
    )


def _name_each_once(figure: go.Figure) -> None:
    """One legend entry for each kind of thing, however many traces draw it."""
    seen: set[str] = set()
    for trace in figure.data:
        if trace.showlegend is not False:
            trace.showlegend = trace.name not in seen
            seen.add(trace.name)


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    """Six significant digits: more than a screen shows, at half the bytes."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values]
