"""What happened to a run, marked over its curves. Pure."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import formatting
from dashboard.figures.axis import Floats, RunAxes
from dashboard.figures.panels import Panel, PanelLayout, vertical_band, vertical_line
from dashboard.figures.style import GREEN, GREY, ORANGE, VERMILLION
from db.interventions import rewound_step
from db.lineage import OUTLIER
from db.models import Event, Incident, Intervention, Order

ARROWS = 0.86
"""Height of the arrows in the first panel, 0..1: the upper part, which curves seldom reach."""
ARROW_HEAD = {"symbol": "triangle-left", "size": [12, 0], "color": GREEN, "opacity": 1, "line": {"width": 0}}
LETTER = 0.007
"""Share of the range in view that a letter of an incident's name takes in a figure of 900 pixels; where it is narrower,
component.js leaves the number alone."""
MARKER = 3
"""Letters that a marker has the room of."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What happened to a run, to be marked over its curves."""

    incidents: Sequence[Incident] = ()
    interventions: Sequence[Intervention] = ()
    orders: Mapping[int, Order] = field(default_factory=dict)
    """By number of the intervention."""
    events: Sequence[Event] = ()
    last_step: int = 0
    """Newest step on the live line: where an incident ends that is not over."""


@dataclass(slots=True)
class Drawn:
    """What is put into a figure, as plotly's dictionaries."""

    traces: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)


def draw_marks(
    layout: PanelLayout, marks: Marks, run_axes: RunAxes, window: tuple[float, float] | None = None
) -> Drawn:
    """`window` is the range in view, in the units of the x axis; None for all of it."""
    drawn = Drawn()
    if layout.panels:
        _add_events(drawn, layout.panels, marks, run_axes)
        _add_incidents(drawn, layout, marks, run_axes, window)
        _add_interventions(drawn, layout.panels, marks, run_axes)
    return drawn


def _add_incidents(
    drawn: Drawn, layout: PanelLayout, marks: Marks, run_axes: RunAxes, window: tuple[float, float] | None
) -> None:
    """A band from onset to end over all panels, and its number and kind in the lane above."""
    for incident in marks.incidents:
        end = max(incident.detected_step, marks.last_step) if incident.end_step is None else incident.end_step
        # Half a step to both sides: a band of one step has a width too.
        ends = [run_axes.at(incident.segment, step) for step in (incident.onset_step - 0.5, end + 0.5)]
        drawn.shapes.append(vertical_band(ends[0], ends[1], VERMILLION))
    if marks.incidents:
        first, last = window or run_axes.live.at([0, marks.last_step])
        x = np.array([run_axes.at(incident.segment, incident.detected_step) for incident in marks.incidents])
        late = x > first + 0.75 * (last - first)
        drawn.traces.append(
            _markers("incident", x.tolist(), {"y": [0.5] * len(x), "yaxis": layout.label_row.mark_axis})
            | {
                "mode": "markers+text",
                "marker": {"symbol": "triangle-down", "size": 12, "color": VERMILLION},
                "text": _incident_names(marks.incidents, x, late, last - first),
                "textposition": np.where(late, "middle left", "middle right").tolist(),
                "textfont": {"size": 12},
                "meta": ((x - first) / (last - first or 1.0)).tolist(),  # where they stand in view, for component.js
                "customdata": [_incident_hover(incident) for incident in marks.incidents],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )


def _incident_names(incidents: Sequence[Incident], x: Floats, late: NDArray[np.bool_], width: float) -> list[str]:
    """Number and kind, or the number alone where the next incident is too near; names of `late` ones stand before."""
    names = []
    for place, incident in enumerate(incidents):
        away = np.where(late[place], x[place] - x, x - x[place])
        away[late != late[place]] /= 2  # both names stand between the two
        beside = np.delete(away, place)
        room = beside[beside >= 0].min(initial=np.inf)
        name = f"#{incident.number} {formatting.incident_kind(incident.kind)}"
        names.append(name if (len(name) + MARKER) * LETTER * width <= room else f"#{incident.number}")
    return names


def _incident_hover(incident: Incident) -> str:
    return f"incident {incident.number} detected: {formatting.incident_kind(incident.kind)} ({incident.state})"


def _add_interventions(drawn: Drawn, panels: list[Panel], marks: Marks, run_axes: RunAxes) -> None:
    """A line over all panels where the run went back to, and an arrow to it from where that was decided."""
    segments = {incident.number: incident.segment for incident in marks.incidents}
    for intervention in marks.interventions:
        target = rewound_step(intervention, marks.orders.get(intervention.number))
        if target is None:
            continue
        segment = segments.get(intervention.incident or 0, 0)
        at = run_axes.at(segment, target)
        decided = run_axes.at(segment, intervention.details.get("decided_step", target))
        drawn.shapes.append(vertical_line(at, {"color": GREEN, "width": 1.4, "dash": "dash"}))
        drawn.traces.append(
            _markers("intervention", [at, decided], {"y": [ARROWS, ARROWS], "yaxis": panels[0].mark_axis})
            | {
                "mode": "lines+markers",
                "line": {"color": GREEN, "width": 1.6},
                "marker": ARROW_HEAD,
                "customdata": [_intervention_hover(intervention, marks)] * 2,
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
        _add_skip(drawn, panels[0], intervention, float(run_axes.live.at([target])[0]))


def _add_skip(drawn: Drawn, panel: Panel, intervention: Intervention, at: float) -> None:
    """Batches are no steps: what was skipped is marked where the run went on without it."""
    if intervention.skip_from is None or intervention.skip_to is None:
        return
    count = formatting.plural(intervention.skip_to - intervention.skip_from, "batch", "batches")
    drawn.traces.append(
        _markers("skipped batches", [at], {"y": [0.0], "yaxis": panel.mark_axis})
        | {
            "marker": {"symbol": "square-x-open", "size": 11, "color": ORANGE, "line": {"width": 1.6}},
            "customdata": [f"{count} {formatting.batches(intervention.skip_from, intervention.skip_to)}"],
            "hovertemplate": "skipped from here: %{customdata}<extra></extra>",
        }
    )


def _intervention_hover(intervention: Intervention, marks: Marks) -> str:
    sentence = formatting.intervention_sentence(intervention, marks.orders.get(intervention.number))
    return f"intervention {intervention.number} ({intervention.state}): {sentence}"


def _add_events(drawn: Drawn, panels: list[Panel], marks: Marks, run_axes: RunAxes) -> None:
    """Declared events as dotted lines with a diamond; outliers that were let pass as open circles at their value."""
    declared = [event for event in marks.events if event.step is not None and event.kind != OUTLIER]
    for event in declared:
        line = {"color": GREY, "width": 1, "dash": "dot"}
        drawn.shapes.append(vertical_line(run_axes.at(event.segment, event.step or 0), line) | {"layer": "below"})
    if declared:
        y = {"y": [0.0] * len(declared), "yaxis": panels[0].mark_axis}
        drawn.traces.append(_event_markers(declared, run_axes, "declared event", "diamond", y))
    for panel in panels:
        outliers = [event for event in marks.events if _is_outlier_of(event, panel.metric)]
        if outliers:
            y = {"y": [event.details["value"] for event in outliers], "yaxis": panel.value_axis}
            drawn.traces.append(_event_markers(outliers, run_axes, "outlier, let pass", "circle-open", y))


def _is_outlier_of(event: Event, metric: str) -> bool:
    """With a value to stand at: what is not finite has its own cross."""
    value = event.details.get("value")
    finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return event.kind == OUTLIER and event.step is not None and event.details.get("signal") == metric and finite


def _event_markers(
    events: Sequence[Event], run_axes: RunAxes, name: str, symbol: str, y: Mapping[str, Any]
) -> dict[str, Any]:
    return _markers(name, [run_axes.at(event.segment, event.step or 0) for event in events], y) | {
        "marker": {"symbol": symbol, "size": 8, "color": GREY},
        "customdata": [_event_hover(event) for event in events],
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
    }


def _event_hover(event: Event) -> str:
    return formatting.escape_plotly(f"{event.kind.replace('_', ' ')} {formatting.details(event.details)}".strip())


def _markers(name: str, x: Sequence[float], y: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "x": x, **y, "name": name, "legendgroup": name, "mode": "markers", "cliponaxis": False}
