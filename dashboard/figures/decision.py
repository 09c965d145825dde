"""Picture of a decision: the loss around an incident, and where each choice leads. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.axes import XAxis
from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.incident import signal_lines
from dashboard.figures.log_scale import log_axes
from dashboard.figures.panels import Panel, panel_figure, panel_layout
from dashboard.figures.style import GREEN, ORANGE, VERMILLION, with_alpha

LOSS = "loss"
MIN_AHEAD = 20
"""Fewest steps that are drawn beyond the newest one."""


@dataclass(frozen=True, slots=True)
class Futures:
    """Possible continuations of a run; the names say what each costs."""

    rewind_to: int
    skipped: tuple[int, int] | None
    """The half-open range of steps whose batches a rollback skips."""
    roll_back: str
    wait: str


def decision_figure(shown: IncidentWindow, futures: Futures) -> go.Figure:
    """Draw a decision. `shown` reaches from before the checkpoint to the newest step, and has the loss."""
    rows = shown.original
    values, finite = rows.metrics[LOSS], np.isfinite(rows.metrics[LOSS])
    layout = panel_layout([LOSS], log=log_axes({LOSS: [values[finite]]}), label_row=0)
    (panel,) = layout.panels
    last = int(rows.steps[-1])
    end = last + max(MIN_AHEAD, (last - futures.rewind_to) // 2)
    traces = [*signal_lines(panel, shown), *_marks(panel, futures)]
    if (calm := finite & (rows.steps <= futures.rewind_to)).any():
        level = float(values[calm][-1])
        band = shown.bands.get(LOSS)
        expected = band.expected[np.isfinite(band.expected)] if band is not None else np.empty(0)
        goal = float(expected[-1]) if len(expected) else level
        traces.append(_future(panel, futures.roll_back, [futures.rewind_to, end], [level, goal], GREEN))
    if finite.any():
        newest = float(values[finite][-1])
        traces.append(_future(panel, futures.wait, [last, end], [newest, newest], VERMILLION))
    first = min(int(rows.steps[0]), futures.rewind_to)
    return panel_figure(layout, without_repeated_legend_entries(traces), XAxis.STEP, (first, end), "decision")


def _marks(panel: Panel, futures: Futures) -> list[dict[str, Any]]:
    at = futures.rewind_to
    base: dict[str, Any] = {"type": "scatter", "mode": "lines", "yaxis": panel.mark_axis, "hoverinfo": "skip"}
    checkpoint = base | {"x": [at, at], "y": [0, 1], "name": f"checkpoint of step {at:,}"}
    marks = [checkpoint | {"line": {"color": GREEN, "width": 1.4, "dash": "dash"}}]
    if futures.skipped is not None:
        first, stop = futures.skipped
        area = {"x": [first, first, stop, stop], "y": [0, 1, 1, 0], "fill": "toself", "line": {"width": 0}}
        marks.append(base | area | {"fillcolor": with_alpha(ORANGE, 0.25), "name": "batches skipped by a rollback"})
    return marks


def _future(panel: Panel, name: str, x: list[int], y: list[float], color: str) -> dict[str, Any]:
    line = {"color": color, "width": 2.2, "dash": "dot"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": np.array(y), "yaxis": panel.value_axis, "name": name,
            "line": line, "hovertemplate": f"{name}<extra></extra>"}  # fmt: skip
