"""What happened to a run, marked over its curves. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import words
from dashboard.panels import Panel, Stack
from dashboard.rulers import Rulers
from dashboard.style import GREEN, GREY, ORANGE, VERMILLION, faint
from db.models import Event, Incident, Intervention, Order

ARROWS = 0.86
"""Height of the arrows in the first panel, 0..1: the upper part, which curves seldom reach."""
NAMED = 6
"""Incidents up to which their kind is written beside the number; more would overlap."""


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


def add_marks(figure: go.Figure, stacked: Stack, marks: Marks, rulers: Rulers) -> None:
    if stacked.panels:
        _add_events(figure, stacked.panels, marks, rulers)
        _add_incidents(figure, stacked, marks, rulers)
        _add_interventions(figure, stacked.panels, marks, rulers)


def _add_incidents(figure: go.Figure, stacked: Stack, marks: Marks, rulers: Rulers) -> None:
    """A band from onset to end over all panels, and its number and kind in the lane above."""
    for incident in marks.incidents:
        end = max(incident.detected_step, marks.last_step) if incident.end_step is None else incident.end_step
        # Half a step to both sides: a band of one step has a width too.
        figure.add_shape(
            type="rect",
            x0=rulers.at(incident.segment, incident.onset_step - 0.5),
            x1=rulers.at(incident.segment, end + 0.5),
            y0=0,
            y1=1,
            yref="paper",
            layer="below",
            fillcolor=faint(VERMILLION, 0.16),
            line={"color": faint(VERMILLION, 0.5), "width": 0.5},
        )
    if marks.incidents:
        few = len(marks.incidents) <= NAMED
        late = rulers.live.at([0.75 * marks.last_step])[0]
        x = [rulers.at(incident.segment, incident.detected_step) for incident in marks.incidents]
        figure.add_scatter(
            x=x,
            y=[0.5] * len(marks.incidents),
            yaxis=stacked.lane.marks,
            name="incident",
            legendgroup="incident",
            mode="markers+text",
            marker={"symbol": "triangle-down", "size": 12, "color": VERMILLION},
            text=[_incident_name(incident, few) for incident in marks.incidents],
            textposition=["middle left" if position > late else "middle right" for position in x],
            textfont={"size": 12},
            cliponaxis=False,
            customdata=[_incident_hover(incident) for incident in marks.incidents],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _incident_name(incident: Incident, with_kind: bool) -> str:
    return f"#{incident.number} {words.incident_kind(incident.kind)}" if with_kind else f"#{incident.number}"


def _incident_hover(incident: Incident) -> str:
    return f"incident {incident.number} detected: {words.incident_kind(incident.kind)} ({incident.state})"


def _add_interventions(figure: go.Figure, panels: list[Panel], marks: Marks, rulers: Rulers) -> None:
    """A line over all panels where the run went back to, and an arrow to it from where that was decided."""
    segments = {incident.number: incident.segment for incident in marks.incidents}
    for intervention in marks.interventions:
        target = _target(intervention, marks)
        if target is None:
            continue
        segment = segments.get(intervention.incident or 0, 0)
        at = rulers.at(segment, target)
        decided = rulers.at(segment, intervention.details.get("decided_step", target))
        figure.add_shape(
            type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line={"color": GREEN, "width": 1.4, "dash": "dash"}
        )
        figure.add_scatter(
            x=[at, decided],
            y=[ARROWS, ARROWS],
            yaxis=panels[0].marks,
            name="intervention",
            legendgroup="intervention",
            mode="lines+markers",
            line={"color": GREEN, "width": 1.6},
            marker={"symbol": "triangle-left", "size": [12, 0], "color": GREEN, "opacity": 1, "line": {"width": 0}},
            customdata=[_intervention_hover(intervention, marks)] * 2,
            hovertemplate="%{customdata}<extra></extra>",
        )
        _add_skip(figure, panels[0], intervention, float(rulers.live.at([target])[0]))


def _add_skip(figure: go.Figure, panel: Panel, intervention: Intervention, at: float) -> None:
    """Batches are no steps: what was skipped is marked where the run went on without it."""
    if intervention.skip_from is None or intervention.skip_to is None:
        return
    count = words.plural(intervention.skip_to - intervention.skip_from, "batch", "batches")
    figure.add_scatter(
        x=[at],
        y=[0.0],
        yaxis=panel.marks,
        name="skipped batches",
        legendgroup="skipped batches",
        mode="markers",
        marker={"symbol": "square-x-open", "size": 11, "color": ORANGE, "line": {"width": 1.6}},
        cliponaxis=False,
        customdata=[f"{count} {words.batches(intervention.skip_from, intervention.skip_to)}"],
        hovertemplate="skipped from here: %{customdata}<extra></extra>",
    )


def _target(intervention: Intervention, marks: Marks) -> int | None:
    """The step that the run went back to; None when it did not (yet)."""
    order = marks.orders.get(intervention.number)
    if order is None or order.state != "applied":
        return None
    return intervention.rewind_to if order.rewound_to is None else order.rewound_to


def _intervention_hover(intervention: Intervention, marks: Marks) -> str:
    sentence = words.intervention_sentence(intervention, marks.orders.get(intervention.number))
    return f"intervention {intervention.number} ({intervention.state}): {sentence}"


def _add_events(figure: go.Figure, panels: list[Panel], marks: Marks, rulers: Rulers) -> None:
    """Declared events as dotted lines with a diamond; outliers that were let pass as open circles at their value."""
    declared = [event for event in marks.events if event.step is not None and event.kind != "outlier"]
    for event in declared:
        at = rulers.at(event.segment, event.step or 0)
        figure.add_shape(
            type="line",
            x0=at,
            x1=at,
            y0=0,
            y1=1,
            yref="paper",
            layer="below",
            line={"color": GREY, "width": 1, "dash": "dot"},
        )
    if declared:
        y = {"y": [0.0] * len(declared), "yaxis": panels[0].marks}
        _add_event_markers(figure, declared, rulers, "declared event", "diamond", y)
    for panel in panels:
        outliers = [event for event in marks.events if _is_outlier_of(event, panel.metric)]
        if outliers:
            y = {"y": [event.details["value"] for event in outliers], "yaxis": panel.values}
            _add_event_markers(figure, outliers, rulers, "outlier, let pass", "circle-open", y)


def _is_outlier_of(event: Event, metric: str) -> bool:
    """With a value to stand at: what is not finite has its own cross."""
    value = event.details.get("value")
    finite = isinstance(value, int | float) and math.isfinite(value)
    return event.kind == "outlier" and event.step is not None and event.details.get("signal") == metric and finite


def _add_event_markers(
    figure: go.Figure, events: Sequence[Event], rulers: Rulers, name: str, symbol: str, y: Mapping[str, Any]
) -> None:
    figure.add_scatter(
        x=[rulers.at(event.segment, event.step or 0) for event in events],
        name=name,
        legendgroup=name,
        mode="markers",
        marker={"symbol": symbol, "size": 8, "color": GREY},
        cliponaxis=False,
        customdata=[_event_hover(event) for event in events],
        hovertemplate=f"{name}: %{{customdata}}<extra></extra>",
        **y,
    )


def _event_hover(event: Event) -> str:
    return words.plain_html(f"{event.kind.replace('_', ' ')} {words.details(event.details)}".strip())
