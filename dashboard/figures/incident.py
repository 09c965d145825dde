"""An incident's figures: its signals step by step with band and score, and where each choice leads. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import formatting
from dashboard.axes import Floats, XAxis, compact
from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.curves import expected_band, without_repeated_legend_entries
from dashboard.figures.lines import non_finite_crosses
from dashboard.figures.panels import Panel, panel_figure, panel_layout, vertical_band, vertical_line
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
    scatter,
    with_alpha,
)
from dashboard.figures.value_axis import log_axes
from db.models import Incident, Intervention
from lossguard.vocabulary.metrics import COUNTS, DETECTOR_INPUTS, SIGNALS, short_name
from lossguard.vocabulary.states import THROUGHPUT_KINDS, IncidentKind
from monitor.detection import Rows

STEP_SECONDS = "step_seconds"


def with_step_times(shown: IncidentWindow) -> IncidentWindow:
    """Add the time per step as a metric; without scores, which are those of the signals."""
    replacement = None if shown.replacement is None else _with_step_times(shown.replacement)
    return replace(shown, original=_with_step_times(shown.original), replacement=replacement, bands={})


def _with_step_times(rows: Rows) -> Rows:
    """The time since the row before, per step; the first row has none."""
    if rows.times is None or not len(rows):
        return rows
    seconds = np.diff(rows.times, prepend=np.nan) / np.diff(rows.steps, prepend=0)
    seconds[~(seconds >= 0)] = np.nan
    metrics = {**rows.metrics, STEP_SECONDS: seconds}
    present = {**rows.present, STEP_SECONDS: np.isfinite(seconds)}
    return Rows(rows.steps, metrics, present, rows.times)


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
    rewinds: Sequence[int],
    window: tuple[int, int] | None,
) -> go.Figure:
    """`interventions`: those on this incident; `rewinds`: steps, of which the last is marked; `window`: in view."""
    is_of_speed = incident.kind in THROUGHPUT_KINDS
    shown = with_step_times(shown) if is_of_speed else shown
    names = [name for name in (STEP_SECONDS, *CURVES) if name in shown.original.metrics]
    # The advisory signals that left their band, and the one that the incident is about.
    judged = {name: band for name, band in shown.bands.items() if name not in SIGNALS}
    names += [name for name, band in judged.items() if name == incident.signal or (band.score >= 1.0).any()]
    if incident.kind == IncidentKind.HELD_OUT_RISE:
        names.sort(key=lambda name: name != incident.signal)
    log = {SCORE} | log_axes({name: _columns(name, shown) for name in names})
    scores = [] if incident.kind in WITHOUT_SCORES else [SCORE]
    layout = panel_layout([*names[:1], *scores, *names[1:]] if names else [], log=log)
    room = EDGE * (shown.last - shown.first)  # for the marks at the ends
    bounds: tuple[float, float] = (shown.first - room, shown.last + room) if window is None else window
    end = incident.end_step
    if end is None:
        end = max(incident.detected_step, int(shown.original.steps[-1]) if len(shown.original) else 0)
    shapes = [vertical_band(incident.onset_step - 0.5, end + 0.5, VERMILLION)]
    shapes += [vertical_line(at, {"color": GREEN, "width": 1.4, "dash": "dash"}) for at in rewinds[-1:]]
    traces: list[dict[str, Any]] = []
    for panel in layout.panels:
        traces += _scores(panel, shown, names) if panel.metric == SCORE else signal_lines(panel, shown)
    traces += _marks(layout.label_row, incident, interventions) if names else []
    traces = without_repeated_legend_entries(traces)
    return panel_figure(layout, traces, XAxis.STEP, bounds, f"incident-{incident.number}", shapes=shapes)


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
    line = scatter(
        panel.value_axis,
        compact(rows.steps[drawn]),
        np.where(finite, values, np.nan)[drawn],
        name,
        mode="lines+markers" if is_rare else "lines",
        hover=f"{label} %{{y:{number_format(panel.metric)}}} ({name})",
        line={"color": color, "width": 1.6},
        marker={"size": 4},
    )
    hit = present & ~finite
    texts = [formatting.number(float(value)) for value in values[hit]]
    return [
        line,
        *non_finite_crosses(panel, compact(rows.steps[hit]), f"{label} ({name}): %{{customdata}}", values=texts),
    ]


def _scores(panel: Panel, shown: IncidentWindow, names: Sequence[str]) -> list[dict[str, Any]]:
    """Draw one line per signal; a value that is not finite has the highest score of the axis."""
    traces, axis = [], panel.value_axis
    bands = {name: band for name, band in shown.bands.items() if name in names}
    for (name, band), colour in zip(bands.items(), cycle(SCORE_COLOURS), strict=False):
        score = np.clip(np.nan_to_num(band.score, nan=0.0, posinf=MAX_SCORE), MIN_SCORE, MAX_SCORE)
        label = f"score of {short_name(name)}"
        line, steps = {"color": colour, "width": 1.4, "shape": "hv"}, compact(shown.original.steps)
        traces.append(scatter(axis, steps, score, label, hover=f"{label} %{{y:{NUMBER}}}", line=line))
    dots = {"color": VERMILLION, "width": 1, "dash": "dot"}
    alarm = scatter(axis, compact([shown.first, shown.last]), np.ones(2), "alarm", line=dots, hoverinfo="skip")
    return [*traces, alarm]


def _marks(label_row: Panel, incident: Incident, interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    marks = [
        ("onset" if incident.kind in WITHOUT_SCORES else "precursor", incident.onset_step, "circle", ORANGE),
        ("detected", incident.detected_step, "triangle-down", VERMILLION),
        ("peak", incident.peak_step, "star", PURPLE),
        *(("decided", each.details.get("decided_step"), "diamond", GREEN) for each in interventions),
    ]
    if incident.onset_step == incident.detected_step:
        marks = marks[1:]
    return [
        scatter(
            label_row.mark_axis,
            compact([step]),
            np.array([0.5]),
            name,
            mode="markers",
            hover=f"{name} at step %{{x:,d}}",
            cliponaxis=False,
            marker={"symbol": symbol, "size": 11, "color": color},
        )
        for name, step, symbol, color in marks
        if step is not None
    ]


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
    traces = [*signal_lines(panel, shown), *_decision_marks(panel, futures)]
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


def _decision_marks(panel: Panel, futures: Futures) -> list[dict[str, Any]]:
    axis, at = panel.mark_axis, futures.rewind_to
    base: dict[str, Any] = {"legendgroup": "", "hoverinfo": "skip"}
    line = {"color": GREEN, "width": 1.4, "dash": "dash"}
    marks = [scatter(axis, [at, at], [0, 1], f"checkpoint of step {at:,}", line=line, **base)]
    if futures.skipped is not None:
        first, stop = futures.skipped
        base |= {"fill": "toself", "fillcolor": with_alpha(ORANGE, 0.25), "line": {"width": 0}}
        x, y = [first, first, stop, stop], [0, 1, 1, 0]
        marks.append(scatter(axis, x, y, "batches skipped by a rollback", **base))
    return marks


def _future(panel: Panel, name: str, x: list[int], y: list[float], color: str) -> dict[str, Any]:
    line = {"color": color, "width": 2.2, "dash": "dot"}
    return scatter(panel.value_axis, x, np.array(y), name, hover=name, legendgroup="", line=line)
