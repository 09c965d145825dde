"""What happened to a run, marked over its curves. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard import words
from dashboard.panels import GREEN, GREY, VERMILLION, Panel, faint
from db.models import Event, Incident, Intervention, Order

ARROWS = 0.86
"""Height of the arrows in the first panel, 0..1: the upper part, which curves seldom reach."""


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


def add_marks(figure: go.Figure, panels: list[Panel], marks: Marks) -> None:
    if panels:
        _add_events(figure, panels, marks)
        _add_incidents(figure, panels, marks)
        _add_interventions(figure, panels, marks)


def _add_incidents(figure: go.Figure, panels: list[Panel], marks: Marks) -> None:
    """A band from onset to end over all panels, and a marker with the kind where the incident was detected."""
    for incident in marks.incidents:
        end = max(incident.detected_step, marks.last_step) if incident.end_step is None else incident.end_step
        # Half a step to both sides: a band of one step has a width too.
        figure.add_shape(
            type="rect",
            x0=incident.onset_step - 0.5,
            x1=end + 0.5,
            y0=0,
            y1=1,
            yref="paper",
            layer="below",
            fillcolor=faint(VERMILLION, 0.16),
            line={"color": faint(VERMILLION, 0.5), "width": 0.5},
        )
    if marks.incidents:
        figure.add_scatter(
            x=[incident.detected_step for incident in marks.incidents],
            y=[1.0] * len(marks.incidents),
            yaxis=panels[0].marks,
            name="incident",
            legendgroup="incident",
            mode="markers+text",
            marker={"symbol": "triangle-down", "size": 12, "color": VERMILLION},
            text=[f"{incident.number} {words.incident_kind(incident.kind)}" for incident in marks.incidents],
            textposition="top center",
            textfont={"size": 12},
            cliponaxis=False,
            customdata=[_incident_hover(incident) for incident in marks.incidents],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _incident_hover(incident: Incident) -> str:
    return f"incident {incident.number} detected: {words.incident_kind(incident.kind)} ({incident.state})"


def _add_interventions(figure: go.Figure, panels: list[Panel], marks: Marks) -> None:
    """A line over all panels where the run went back to, and an arrow to it from where that was decided."""
    rewinds = [(each, target) for each in marks.interventions if (target := _target(each, marks)) is not None]
    for intervention, target in rewinds:
        figure.add_shape(
            type="line",
            x0=target,
            x1=target,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": GREEN, "width": 1.4, "dash": "dash"},
        )
        decided = intervention.details.get("decided_step", target)
        figure.add_scatter(
            x=[target, decided],
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


def _target(intervention: Intervention, marks: Marks) -> int | None:
    """The step that the run went back to; None when it did not (yet)."""
    order = marks.orders.get(intervention.number)
    if order is None or order.state != "applied":
        return None
    return intervention.rewind_to if order.rewound_to is None else order.rewound_to


def _intervention_hover(intervention: Intervention, marks: Marks) -> str:
    sentence = words.intervention_sentence(intervention, marks.orders.get(intervention.number))
    return f"intervention {intervention.number} ({intervention.state}): {sentence}"


def _add_events(figure: go.Figure, panels: list[Panel], marks: Marks) -> None:
    """Declared events as dotted lines with a diamond; outliers that were let pass as open circles in their panel."""
    placed = [event for event in marks.events if event.step is not None]
    declared = [event for event in placed if event.kind != "outlier"]
    for event in declared:
        figure.add_shape(
            type="line",
            x0=event.step,
            x1=event.step,
            y0=0,
            y1=1,
            yref="paper",
            layer="below",
            line={"color": GREY, "width": 1, "dash": "dot"},
        )
    if declared:
        _add_event_markers(figure, panels[0], declared, "declared event", "diamond", 0.0)
    for panel in panels:
        outliers = [
            event for event in placed if event.kind == "outlier" and event.details.get("signal") == panel.metric
        ]
        if outliers:
            _add_event_markers(figure, panel, outliers, "outlier, let pass", "circle-open", 0.95)


def _add_event_markers(
    figure: go.Figure, panel: Panel, events: Sequence[Event], name: str, symbol: str, y: float
) -> None:
    figure.add_scatter(
        x=[event.step for event in events],
        y=[y] * len(events),
        yaxis=panel.marks,
        name=name,
        legendgroup=name,
        mode="markers",
        marker={"symbol": symbol, "size": 8, "color": GREY},
        cliponaxis=False,
        customdata=[f"{event.kind.replace('_', ' ')} {words.details(event.details)}".strip() for event in events],
        hovertemplate=f"{name}: %{{customdata}}<extra></extra>",
    )
