"""An incident's figure: each signal step by step, its expected band, and its score. Pure."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import Floats, XAxis, compact
from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.curves import without_repeated_legend_entries
from dashboard.figures.expected_band import expected_band
from dashboard.figures.log_scale import log_axes
from dashboard.figures.non_finite import non_finite_crosses
from dashboard.figures.panels import Panel, panel_figure, panel_layout, vertical_band, vertical_line
from dashboard.figures.step_times import STEP_SECONDS, with_step_times
from dashboard.figures.style import (
    BLUE,
    GREEN,
    NUMBER,
    OLIVE,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    number_format,
)
from db.models import Incident, Intervention
from lossguard.vocabulary.metrics import COUNTS, DETECTOR_INPUTS, SIGNALS, short_name
from lossguard.vocabulary.states import THROUGHPUT_KINDS, IncidentKind
from monitor.detection import Rows

CURVES = (*SIGNALS, *(name for name in DETECTOR_INPUTS if name not in SIGNALS and name not in COUNTS))
SCORE = "Score (1 is the alarm threshold)"
MIN_SCORE, MAX_SCORE = 0.1, 1000.0
"""Ends of the log axis of scores: a spike may score a hundred times the alarm threshold."""
WITHOUT_SCORES = THROUGHPUT_KINDS | {IncidentKind.HELD_OUT_RISE}
"""Kinds that no score of a row shows."""
EDGE = 0.01
"""Free share of the x axis at both ends."""
SCORE_COLOURS = (PURPLE, ORANGE, SKY, OLIVE, GREEN, BLUE)


def incident_figure(
    shown: IncidentWindow,
    incident: Incident,
    interventions: Sequence[Intervention],
    rewound_to: int | None,
    window: tuple[int, int] | None,
) -> go.Figure:
    """`interventions`: those on this incident; `rewound_to`: a step, where there was a rewind; `window`: in view."""
    is_of_speed = incident.kind in THROUGHPUT_KINDS
    shown = with_step_times(shown) if is_of_speed else shown
    names = [name for name in (STEP_SECONDS, *CURVES) if name in shown.original.metrics]
    names += _advisory(incident, shown)
    if incident.kind == IncidentKind.HELD_OUT_RISE:
        names.sort(key=lambda name: name != incident.signal)
    log = {SCORE} | log_axes({name: _columns(name, shown) for name in names})
    scores = [] if incident.kind in WITHOUT_SCORES else [SCORE]
    layout = panel_layout([*names[:1], *scores, *names[1:]] if names else [], log=log)
    bounds: tuple[float, float] = _with_room(shown.first, shown.last) if window is None else window
    shapes = _shapes(incident, rewound_to, shown)
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        traces += _scores(panel, shown, names) if panel.metric == SCORE else signal_lines(panel, shown)
    traces += _marks(layout.label_row, incident, interventions) if names else []
    traces = without_repeated_legend_entries(traces)
    return panel_figure(layout, traces, XAxis.STEP, bounds, f"incident-{incident.number}", shapes=shapes)


def _advisory(incident: Incident, shown: IncidentWindow) -> list[str]:
    """The advisory signals that left their band, and the one that the incident is about."""
    judged = {name: band for name, band in shown.bands.items() if name not in SIGNALS}
    return [name for name, band in judged.items() if name == incident.signal or (band.score >= 1.0).any()]


def _with_room(first: int, last: int) -> tuple[float, float]:
    """A range around these steps that does not cut the marks at its ends."""
    room = EDGE * (last - first)
    return first - room, last + room


def _columns(name: str, shown: IncidentWindow) -> list[Floats]:
    lines = (shown.original, shown.replacement)
    columns = [rows.metrics[name] for rows in lines if rows is not None and name in rows.metrics]
    band = shown.bands.get(name)
    return columns if band is None else [*columns, band.low, band.high]


def signal_lines(panel: Panel, shown: IncidentWindow) -> list[dict[str, Any]]:
    """The expected band of a signal, its line and the one that replaced it."""
    name = panel.metric
    band, steps = shown.bands.get(name), shown.original.steps.astype(np.float64)
    traces = [] if band is None else expected_band(panel, steps, band)
    traces += _line(panel, shown.original, "as it happened", BLUE)
    if shown.replacement is not None and name in shown.replacement.metrics:
        traces += _line(panel, shown.replacement, "after the rollback", GREEN)
    return traces


def _line(panel: Panel, rows: Rows, name: str, color: str) -> list[dict[str, Any]]:
    values = rows.metrics[panel.metric]
    label = formatting.escape_plotly(short_name(panel.metric))
    finite = np.isfinite(values)
    present = rows.present[panel.metric]
    is_rare = 2 * np.count_nonzero(present) < len(present)  # such as a held-out loss
    drawn = present if is_rare else np.ones_like(present)
    line = _trace(panel, rows.steps[drawn], np.where(finite, values, np.nan)[drawn], name) | {
        "line": {"color": color, "width": 1.6},
        "mode": "lines+markers" if is_rare else "lines",
        "marker": {"size": 4},
        "hovertemplate": f"{label} %{{y:{number_format(panel.metric)}}} ({name})<extra></extra>",
    }
    hit = present & ~finite
    texts = [formatting.number(float(value)) for value in values[hit]]
    return [
        line,
        *non_finite_crosses(panel, compact(rows.steps[hit]), f"{label} ({name}): %{{customdata}}", values=texts),
    ]


def _scores(panel: Panel, shown: IncidentWindow, names: Sequence[str]) -> list[dict[str, Any]]:
    """Draw one line per signal; a value that is not finite has the highest score of the axis."""
    traces = []
    bands = {name: band for name, band in shown.bands.items() if name in names}
    for (name, band), colour in zip(bands.items(), cycle(SCORE_COLOURS), strict=False):
        score = np.clip(np.nan_to_num(band.score, nan=0.0, posinf=MAX_SCORE), MIN_SCORE, MAX_SCORE)
        label = f"score of {short_name(name)}"
        traces.append(
            _trace(panel, shown.original.steps, score, label)
            | {"line": {"color": colour, "width": 1.4, "shape": "hv"}}
            | {"hovertemplate": f"{label} %{{y:{NUMBER}}}<extra></extra>"}
        )
    alarm = _trace(panel, np.array([shown.first, shown.last]), np.ones(2), "alarm")
    return [*traces, alarm | {"line": {"color": VERMILLION, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}]


def _marks(label_row: Panel, incident: Incident, interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    marks = [
        (
            "onset" if incident.kind in WITHOUT_SCORES else "precursor",
            incident.onset_step,
            "circle",
            ORANGE,
        ),
        ("detected", incident.detected_step, "triangle-down", VERMILLION),
        ("peak", incident.peak_step, "star", PURPLE),
        *(("decided", each.details.get("decided_step"), "diamond", GREEN) for each in interventions),
    ]
    if incident.onset_step == incident.detected_step:
        marks = marks[1:]
    return [
        _trace(label_row, np.array([step]), np.array([0.5]), name)
        | {"mode": "markers", "yaxis": label_row.mark_axis, "cliponaxis": False}
        | {"marker": {"symbol": symbol, "size": 11, "color": color}}
        | {"hovertemplate": f"{name} at step %{{x:,d}}<extra></extra>"}
        for name, step, symbol, color in marks
        if step is not None
    ]


def _shapes(incident: Incident, rewound_to: int | None, shown: IncidentWindow) -> list[dict[str, Any]]:
    end = incident.end_step
    if end is None:
        end = max(incident.detected_step, int(shown.original.steps[-1]) if len(shown.original) else 0)
    shapes = [vertical_band(incident.onset_step - 0.5, end + 0.5, VERMILLION)]
    if rewound_to is not None:
        shapes.append(vertical_line(rewound_to, {"color": GREEN, "width": 1.4, "dash": "dash"}))
    return shapes


def _trace(panel: Panel, x: Any, y: Floats, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": compact(x),
        "y": y,
        "yaxis": panel.value_axis,
        "name": name,
        "legendgroup": name,
        "mode": "lines",
    }
