"""An incident's figure: each signal step by step, the band that was expected, and the score. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.axis import Floats, XAxis
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.float32 import as_float32
from dashboard.figures.log_scale import log_axes
from dashboard.figures.panels import Panel, PanelLayout, empty_figure, panel_layout, vertical_band, vertical_line
from dashboard.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, with_alpha
from db.models import Incident, Intervention
from lossguard.metrics import short_name
from monitor.detection import Rows
from monitor.detection.expected_bands import Band

SIGNALS = ("loss", "grad_norm", "log_z")
OTHERS = ("lr",)
SCORE = "Score (1 is the alarm)"
LEAST_SCORE, MOST_SCORE = 0.1, 1000.0
"""What the log axis of the scores shows: a spike scores a hundred times what is worth a look."""
SCORE_COLOURS = {"loss": PURPLE, "grad_norm": ORANGE, "log_z": SKY}


def incident_figure(
    seen: IncidentWindow,
    incident: Incident,
    deeds: Sequence[Intervention],
    fork: int | None,
    window: tuple[int, int] | None,
) -> go.Figure:
    """`deeds`: the interventions on it; `fork`: the step that the run went back to; `window`: the steps in view."""
    names = [name for name in (*SIGNALS, *OTHERS) if name in seen.original.metrics]
    log = {SCORE} | log_axes({name: _columns(name, seen) for name in names})
    layout = panel_layout([*names[:1], SCORE, *names[1:]] if names else [], log=log)
    bounds = (seen.first, seen.last) if window is None else window
    shapes = _shapes(incident, fork, seen)
    figure = empty_figure(layout, XAxis.STEP, bounds, f"incident-{incident.number}", shapes=shapes)
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        traces += _scores(panel, seen) if panel.metric == SCORE else _signal(panel, seen)
    traces += _marks(layout, incident, deeds) if names else []
    figure.add_traces(without_repeated_legend_entries(traces))
    return figure


def _columns(name: str, seen: IncidentWindow) -> list[Floats]:
    lines = [
        rows.metrics[name] for rows in (seen.original, seen.replacement) if rows is not None and name in rows.metrics
    ]
    band = seen.bands.get(name)
    return lines if band is None else [*lines, band.low, band.high]


def _signal(panel: Panel, seen: IncidentWindow) -> list[dict[str, Any]]:
    name = panel.metric
    traces = _band(panel, seen.original, seen.bands[name]) if name in seen.bands else []
    traces += _line(panel, seen.original, "as it happened", BLUE)
    if seen.replacement is not None and name in seen.replacement.metrics:
        traces += _line(panel, seen.replacement, "after the rollback", GREEN)
    return traces


def _line(panel: Panel, rows: Rows, name: str, color: str) -> list[dict[str, Any]]:
    values, present = rows.metrics[panel.metric], rows.present[panel.metric]
    label = formatting.escape_plotly(short_name(panel.metric))
    finite = np.where(np.isfinite(values), values, np.nan)
    line = _trace(panel, rows.steps, finite, name) | {
        "line": {"color": color, "width": 1.6},
        "hovertemplate": f"{label} %{{y:.5~g}} ({name})<extra></extra>",
    }
    return [line, *_broken(panel, rows, present & ~np.isfinite(values), f"{label} ({name})")]


def _broken(panel: Panel, rows: Rows, hit: Any, label: str) -> list[dict[str, Any]]:
    """A cross on the panel's upper edge for each value that is not finite."""
    if not hit.any():
        return []
    steps, values = rows.steps[hit], rows.metrics[panel.metric][hit]
    marker = {"symbol": "x-thin", "size": 9, "line": {"color": PURPLE, "width": 2.5}}
    trace = _trace(panel, steps, np.full(len(steps), 0.95), "not finite")
    return [
        trace
        | {"mode": "markers", "yaxis": panel.mark_axis, "marker": marker}
        | {"customdata": [formatting.number(float(value)) for value in values]}
        | {"hovertemplate": f"{label}: %{{customdata}}<extra></extra>"}
    ]


def _band(panel: Panel, rows: Rows, expected: Band) -> list[dict[str, Any]]:
    """The band as a filled ribbon and its middle as a dashed line; nothing where nothing was known yet."""
    known = np.isfinite(expected.low) & np.isfinite(expected.high)
    steps = rows.steps[known]
    edge = {"line": {"color": with_alpha(GREY, 0.5), "width": 0.5}, "hoverinfo": "skip"}
    low = _trace(panel, steps, expected.low[known], "expected band") | edge | {"showlegend": False}
    high = _trace(panel, steps, expected.high[known], "expected band") | edge
    middle = _trace(panel, steps, expected.expected[known], "expected") | {
        "line": {"color": GREY, "width": 1.2, "dash": "dash"},
        "customdata": np.stack([expected.low[known], expected.high[known]], axis=1),
        "hovertemplate": "expected %{y:.5~g} (band %{customdata[0]:.4~g} .. %{customdata[1]:.4~g})<extra></extra>",
    }
    return [low, high | {"fill": "tonexty", "fillcolor": with_alpha(GREY, 0.25)}, middle]


def _scores(panel: Panel, seen: IncidentWindow) -> list[dict[str, Any]]:
    """One line per signal; a value that is not finite is beyond every score."""
    traces = []
    for name, one in seen.bands.items():
        score = np.clip(np.nan_to_num(one.score, nan=0.0, posinf=MOST_SCORE), LEAST_SCORE, MOST_SCORE)
        label = f"score of {short_name(name)}"
        traces.append(
            _trace(panel, seen.original.steps, score, label)
            | {"line": {"color": SCORE_COLOURS[name], "width": 1.4, "shape": "hv"}}
            | {"hovertemplate": f"{label} %{{y:.3~g}}<extra></extra>"}
        )
    alarm = _trace(panel, np.array([seen.first, seen.last]), np.ones(2), "alarm")
    return [*traces, alarm | {"line": {"color": VERMILLION, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}]


def _marks(layout: PanelLayout, incident: Incident, deeds: Sequence[Intervention]) -> list[dict[str, Any]]:
    """In the lane above the panels."""
    places = [
        ("precursor", incident.onset_step, "circle", ORANGE),
        ("detected", incident.detected_step, "triangle-down", VERMILLION),
        ("peak", incident.peak_step, "star", PURPLE),
        *(("decided", each.details.get("decided_step"), "diamond", GREEN) for each in deeds),
    ]
    if incident.onset_step == incident.detected_step:
        places = places[1:]
    return [
        _trace(layout.label_row, np.array([step]), np.array([0.5]), name)
        | {"mode": "markers", "yaxis": layout.label_row.mark_axis, "cliponaxis": False}
        | {"marker": {"symbol": symbol, "size": 11, "color": color}}
        | {"hovertemplate": f"{name} at step %{{x:,d}}<extra></extra>"}
        for name, step, symbol, color in places
        if step is not None
    ]


def _shapes(incident: Incident, fork: int | None, seen: IncidentWindow) -> list[dict[str, Any]]:
    end = incident.end_step
    if end is None:
        end = max(incident.detected_step, int(seen.original.steps[-1]) if len(seen.original) else 0)
    shapes = [vertical_band(incident.onset_step - 0.5, end + 0.5, VERMILLION)]
    if fork is not None:
        shapes.append(vertical_line(fork, {"color": GREEN, "width": 1.4, "dash": "dash"}))
    return shapes


def _trace(panel: Panel, x: Any, y: Floats, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": x.astype(np.int32) if len(x) and x.max() < 2**31 else x,
        "y": as_float32(y),
        "yaxis": panel.value_axis,
        "name": name,
        "legendgroup": name,
        "mode": "lines",
    }
