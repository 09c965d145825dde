"""The figure of the detector lab: the loss, what is known to have been there, and what was found. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.figures.axis import XAxis
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.float32 import as_float32
from dashboard.figures.log_scale import log_axes
from dashboard.figures.panels import Panel, empty_figure, panel_layout, vertical_band
from dashboard.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, with_alpha
from dashboard.views.lab.trial import Finding, deed
from dashboard.views.lab.trial_input import Specimen
from monitor.detection import Rows

POINTS = 800
"""Buckets of a strand: the least and the largest value of each are drawn."""
SIGNS = {"caught": ("circle", GREEN), "missed": ("x", VERMILLION), "new": ("triangle-down", ORANGE)}


def trial_figure(specimen: Specimen, found: Sequence[Finding]) -> go.Figure:
    losses = [strand.rows.metrics["loss"] for strand in specimen.strands if "loss" in strand.rows.metrics]
    layout = panel_layout(["loss"], log=log_axes({"loss": losses}))
    troubles = [vertical_band(one.first - 0.5, one.last + 0.5, PURPLE) for one in specimen.troubles]
    figure = empty_figure(layout, XAxis.STEP, None, "lab", shapes=troubles)
    panel = layout.panels[0]
    traces: list[dict[str, Any]] = []
    for strand in specimen.strands:
        end = int(np.searchsorted(strand.rows.steps, specimen.left.get(strand.number, np.inf)))
        traces += _strand(panel, strand.rows[:end], "loss", BLUE)
        traces += _strand(panel, strand.rows[end:], "loss, discarded branch", GREY)
        traces += _broken(panel, strand.rows)
    for verdict in SIGNS:
        traces += _found(layout.label_row, verdict, [each for each in found if each.verdict == verdict])
    traces += [_rewind(panel, each) for each in found if each.action is not None and each.action.rewind_to is not None]
    figure.add_traces(without_repeated_legend_entries(traces))
    return figure


def _strand(panel: Panel, rows: Rows, name: str, color: str) -> list[dict[str, Any]]:
    """An outline of the least and the largest values: a spike of one step stays a visible stroke."""
    if not len(rows):
        return []
    steps, low, high = outline(rows, POINTS)
    common = {
        "type": "scatter",
        "x": steps,
        "yaxis": panel.value_axis,
        "name": name,
        "legendgroup": name,
        "mode": "lines",
    }
    line = {"line": {"color": color, "width": 1}}
    if len(steps) == len(rows):
        return [common | line | {"y": high, "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>"}]
    edge = {"y": low, "hoverinfo": "skip"}
    fill = {"y": high, "fill": "tonexty", "fillcolor": with_alpha(color, 0.5)}
    return [common | line | edge, common | line | fill | {"hovertemplate": f"{name} up to %{{y:.4~g}}<extra></extra>"}]


def outline(rows: Rows, points: int) -> tuple[Any, Any, Any]:
    """First step, least and largest finite loss of at most `points` buckets; NaN where a bucket has none."""
    width = max(1, -(-len(rows) // points))
    starts = np.arange(0, len(rows), width)
    loss = rows.metrics["loss"] if "loss" in rows.metrics else np.full(len(rows), np.nan)
    finite = np.isfinite(loss)
    low = np.minimum.reduceat(np.where(finite, loss, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, loss, -np.inf), starts)
    empty = ~np.isfinite(low)
    low[empty] = high[empty] = np.nan
    return rows.steps[starts].astype(np.float64), as_float32(low), as_float32(high)


def _broken(panel: Panel, rows: Rows) -> list[dict[str, Any]]:
    """A cross on the panel's upper edge for the values that are not finite, POINTS of them at most."""
    hit = rows.present["loss"] & ~np.isfinite(rows.metrics["loss"]) if "loss" in rows.metrics else np.zeros(0)
    steps = rows.steps[np.flatnonzero(hit)]
    if not len(steps):
        return []
    shown = steps[:: -(-len(steps) // POINTS)]
    place = {"x": shown.astype(np.float64), "y": np.full(len(shown), 0.95, np.float32), "yaxis": panel.mark_axis}
    marker = {"symbol": "x-thin", "size": 9, "line": {"color": PURPLE, "width": 2.5}}
    name = {"name": "not finite", "legendgroup": "not finite", "hovertemplate": "not finite<extra></extra>"}
    return [{"type": "scatter", "mode": "markers", "marker": marker} | place | name]


def _found(label_row: Panel, verdict: str, found: Sequence[Finding]) -> list[dict[str, Any]]:
    if not found:
        return []
    symbol, color = SIGNS[verdict]
    return [
        {
            "type": "scatter",
            "x": [each.step for each in found],
            "y": [0.5] * len(found),
            "yaxis": label_row.mark_axis,
            "name": verdict,
            "legendgroup": verdict,
            "mode": "markers",
            "cliponaxis": False,
            "marker": {"symbol": symbol, "size": 10, "color": color},
            "customdata": [_hover(each) for each in found],
            "hovertemplate": f"{verdict}: %{{customdata}}<extra></extra>",
        }
    ]


def _hover(each: Finding) -> str:
    if each.incident is None:
        return "" if each.trouble is None else each.trouble.name
    return (
        f"{formatting.incident_kind(each.incident.kind)} at step {each.incident.detected_step:,}: {deed(each.action)}"
    )


def _rewind(panel: Panel, each: Finding) -> dict[str, Any]:
    assert each.action is not None
    return {
        "type": "scatter",
        "x": [each.action.rewind_to, each.action.decided_step],
        "y": [0.9, 0.9],
        "yaxis": panel.mark_axis,
        "name": "rewind",
        "legendgroup": "rewind",
        "mode": "lines+markers",
        "line": {"color": GREEN, "width": 1.6},
        "marker": {"symbol": "triangle-left", "size": [10, 0], "color": GREEN, "opacity": 1, "line": {"width": 0}},
        "hoverinfo": "skip",
    }
