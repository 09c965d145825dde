"""The figure of the detector lab: the loss, the known incidents, and the detected ones. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import XAxis
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.lines import non_finite_crosses
from dashboard.figures.marks import ARROW_HEAD
from dashboard.figures.panels import Panel, panel_figure, panel_layout, vertical_band
from dashboard.figures.style import BLUE, GREEN, GREY, NUMBER, ORANGE, PURPLE, VERMILLION, scatter, with_alpha
from dashboard.figures.value_axis import log_axes
from dashboard.views.lab.trial_input import TrialInput
from dashboard.views.lab.trial_results import TrialResult, TrialVerdict, describe, rollbacks
from monitor.detection import Rows

MAX_BUCKETS = 800
"""Per segment: the smallest and the largest value of each bucket are drawn."""
MARKERS = {
    TrialVerdict.CAUGHT: ("circle", GREEN),
    TrialVerdict.MISSED: ("x", VERMILLION),
    TrialVerdict.NEW: ("triangle-down", ORANGE),
}


def trial_figure(data: TrialInput, results: Sequence[TrialResult]) -> go.Figure:
    losses = [segment.rows.metrics["loss"] for segment in data.segments if "loss" in segment.rows.metrics]
    layout = panel_layout(["loss"], log=log_axes({"loss": losses}))
    bands = [vertical_band(known.first - 0.5, known.last + 0.5, PURPLE) for known in data.known_incidents]
    panel = layout.panels[0]
    traces: list[dict[str, Any]] = []
    for segment in data.segments:
        end = int(np.searchsorted(segment.rows.steps, data.discarded_from.get(segment.number, np.inf)))
        traces += _envelope(panel, segment.rows[:end], "loss", BLUE)
        traces += _envelope(panel, segment.rows[end:], "loss, discarded branch", GREY)
        traces += _non_finite(panel, segment.rows)
    for verdict in TrialVerdict:
        traces += _markers(layout.label_row, verdict, [each for each in results if each.verdict is verdict])
    look: dict[str, Any] = {"line": {"color": GREEN, "width": 1.6}, "marker": ARROW_HEAD, "hoverinfo": "skip"}
    for _, rollback in rollbacks(results):  # an arrow from the step of the decision to that of the checkpoint
        ends = [rollback.rewind_to, rollback.decided_step]
        traces.append(scatter(panel.mark_axis, ends, [0.9, 0.9], "rewind", mode="lines+markers", **look))
    return panel_figure(layout, without_repeated_legend_entries(traces), XAxis.STEP, None, "lab", shapes=bands)


def _envelope(panel: Panel, rows: Rows, name: str, color: str) -> list[dict[str, Any]]:
    """The range from the smallest to the largest value of each bucket: a spike of one step stays visible."""
    if not len(rows):
        return []
    steps, low, high = bucket_ranges(rows, MAX_BUCKETS)
    axis, line = panel.value_axis, {"color": color, "width": 1}
    if len(steps) == len(rows):
        return [scatter(axis, steps, high, name, hover=f"{name} %{{y:{NUMBER}}}", line=line)]
    fill: dict[str, Any] = {"fill": "tonexty", "fillcolor": with_alpha(color, 0.5)}
    return [
        scatter(axis, steps, low, name, line=line, hoverinfo="skip"),
        scatter(axis, steps, high, name, hover=f"{name} up to %{{y:{NUMBER}}}", line=line, **fill),
    ]


def bucket_ranges(rows: Rows, max_buckets: int) -> tuple[Any, Any, Any]:
    """First step, smallest and largest finite loss of at most `max_buckets` buckets; NaN where a bucket has none."""
    width = max(1, -(-len(rows) // max_buckets))
    starts = np.arange(0, len(rows), width)
    loss = rows.metrics["loss"] if "loss" in rows.metrics else np.full(len(rows), np.nan)
    finite = np.isfinite(loss)
    low = np.minimum.reduceat(np.where(finite, loss, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, loss, -np.inf), starts)
    empty = ~np.isfinite(low)
    low[empty] = high[empty] = np.nan
    return rows.steps[starts].astype(np.float64), low, high


def _non_finite(panel: Panel, rows: Rows) -> list[dict[str, Any]]:
    """Draw at most MAX_BUCKETS crosses where the loss is not finite."""
    if "loss" not in rows.metrics:
        return []
    steps = rows.steps[rows.present["loss"] & ~np.isfinite(rows.metrics["loss"])]
    width = max(1, -(-len(steps) // MAX_BUCKETS))
    return non_finite_crosses(panel, steps[::width].astype(np.float64), "not finite")


def _markers(label_row: Panel, verdict: TrialVerdict, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    if not results:
        return []
    symbol, color = MARKERS[verdict]
    trace = scatter(
        label_row.mark_axis,
        [each.step for each in results],
        [0.5] * len(results),
        str(verdict),
        mode="markers",
        hover=f"{verdict}: %{{customdata}}",
        cliponaxis=False,
        marker={"symbol": symbol, "size": 10, "color": color},
        customdata=[_hover(each) for each in results],
    )
    return [trace]


def _hover(result: TrialResult) -> str:
    incident = result.detected
    if incident is None:
        return "" if result.known is None else result.known.name
    kind = formatting.incident_kind(incident.kind)
    return f"{kind} at step {incident.detected_step:,}: {describe(result.intervention)}"
