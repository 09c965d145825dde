"""Marks of a run's events over its curves. Pure."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import formatting
from dashboard.axes import Floats, RunAxes
from dashboard.data.facts import Curve, RunFacts
from dashboard.figures.panels import Panel, PanelLayout, vertical_band, vertical_line
from dashboard.figures.style import GREEN, GREY, OLIVE, ORANGE, VERMILLION, scatter
from dashboard.url_state import incident_url
from db.lineage import OUTLIER
from db.models import Event, Incident, Intervention, Order
from db.queries import Series
from db.records.step_notes import StepNote
from db.run_states import rewound_step
from lossguard.vocabulary import wording
from lossguard.vocabulary.source_facts import says_source
from lossguard.vocabulary.states import IncidentState

ARROW_HEIGHT = 0.86
"""Height of the arrows in the first panel, 0..1: in the upper part, which curves seldom reach."""
ARROW_HEAD = {"symbol": "triangle-left", "size": [12, 0], "color": GREEN, "opacity": 1, "line": {"width": 0}}
LETTER_WIDTH = 0.007
"""Share of the range in view that one letter of an incident's name takes in a figure of 900 pixels; in a narrower one,
component.js shows the number alone."""
MAX_HOVER_LETTERS = 300
"""Maximum letters of an event; the table of events has all of its details."""
PIN_HEAD, PIN_POINT = 0.96, 0.88
"""Heights of a note's pin in the first panel, 0..1: above the arrows."""
PIN_MARKER = {"symbol": "circle", "color": OLIVE, "opacity": 1, "line": {"width": 0}}
HOVER_LINE_LETTERS = 60
"""Width of a line of a note: plotly does not break lines."""
MAX_INCIDENTS = 300
"""Marked at once, with their interventions: nobody could distinguish more, and thousands take a browser seconds."""
SKIPPED_UPDATE = "skipped update"
"""Name in the legend."""
SKIPPED_HEIGHT = 0.03
"""Height of the marks of skipped updates in their panel, 0..1."""
MARKER_LETTERS = 3
"""Width of a marker, in letters."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Events of a run, to be marked over its curves."""

    incidents: Sequence[Incident] = ()
    interventions: Sequence[Intervention] = ()
    orders: Mapping[int, Order] = field(default_factory=dict)
    """Orders by number of the intervention."""
    events: Sequence[Event] = ()
    last_step: int = 0
    """Newest step on the live line, where the band of an incident ends that is not over."""
    skipped: Curve | None = None
    """Number of updates that the optimizer did not take; None: unknown."""
    notes: Sequence[StepNote] = ()
    """Notes of people at steps, by step."""
    run_id: str | None = None
    """Id of the run to whose incidents the markers link; None: they link nowhere."""

    @classmethod
    def of(cls, facts: RunFacts, *, skipped: Curve | None, most: int | None = None) -> "Marks":
        """The marks of a run, with the newest events and notes, at most `most` of each."""
        newest = slice(None if most is None else -most, None)
        return cls(
            incidents=facts.incidents,
            interventions=facts.interventions,
            orders=facts.orders,
            events=facts.events[newest],
            last_step=facts.progress.done - 1,
            skipped=skipped,
            notes=facts.notes[newest],
        )


@dataclass(slots=True)
class DrawnMarks:
    """Traces and shapes, as plotly's dictionaries."""

    traces: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)


def draw_marks(
    layout: PanelLayout, marks: Marks, run_axes: RunAxes, window: tuple[float, float] | None = None
) -> DrawnMarks:
    """Draw the marks. `window` is the range in view, in units of the x axis; None for all of it."""
    drawn, marks = DrawnMarks(), _limited(marks, run_axes, window)
    if layout.panels:
        _add_events(drawn, layout.panels, marks, run_axes)
        _add_incidents(drawn, layout.label_row, marks, run_axes, window)
        _add_interventions(drawn, layout.panels[0], marks, run_axes)
        if marks.skipped is not None:
            drawn.traces += _skipped_updates(layout.panels[0], marks.skipped, run_axes)
        if marks.notes:
            drawn.traces.append(_pins(layout.panels[0], marks.notes, run_axes))
    return drawn


def _limited(marks: Marks, run_axes: RunAxes, window: tuple[float, float] | None) -> Marks:
    """Return the incidents in view that are marked: open ones, then the newest. Zooming in shows the others."""
    if len(marks.incidents) <= MAX_INCIDENTS:
        return marks
    first, last = window or (-np.inf, np.inf)
    in_view = [each for each in marks.incidents if first <= run_axes.at(each.segment, each.detected_step) <= last]
    by_importance = sorted(in_view, key=lambda each: (each.state == IncidentState.CLOSED, -each.number))
    kept = {each.number for each in by_importance[:MAX_INCIDENTS]}
    return replace(
        marks,
        incidents=[each for each in marks.incidents if each.number in kept],
        interventions=[each for each in marks.interventions if each.incident is None or each.incident in kept],
    )


def _add_incidents(
    drawn: DrawnMarks, label_row: Panel, marks: Marks, run_axes: RunAxes, window: tuple[float, float] | None
) -> None:
    """A band from onset to end over all panels, and number and kind in the row above them."""
    for incident in marks.incidents:
        end = max(incident.detected_step, marks.last_step) if incident.end_step is None else incident.end_step
        # Half a step to both sides: a band of one step has a width too.
        ends = [run_axes.at(incident.segment, step) for step in (incident.onset_step - 0.5, end + 0.5)]
        drawn.shapes.append(vertical_band(ends[0], ends[1], VERMILLION))
    if marks.incidents:
        first, last = window or run_axes.live.at([0, marks.last_step])
        labels = _incident_labels(label_row, marks.incidents, run_axes, first, last)
        if marks.run_id is not None:  # component.js opens the address when a marker is clicked
            labels["hovertemplate"] = "%{customdata}, a click opens its page<extra></extra>"
            labels["ids"] = [incident_url(marks.run_id, incident.number) for incident in marks.incidents]
        drawn.traces.append(labels)


def _incident_labels(
    label_row: Panel, incidents: Sequence[Incident], run_axes: RunAxes, first: float, last: float
) -> dict[str, Any]:
    x = np.array([run_axes.at(incident.segment, incident.detected_step) for incident in incidents])
    on_left = x > first + 0.75 * (last - first)
    return _markers(
        label_row.mark_axis,
        x.tolist(),
        [0.5] * len(x),
        "incident",
        [_incident_hover(incident) for incident in incidents],
        mode="markers+text",
        marker={"symbol": "triangle-down", "size": 12, "color": VERMILLION},
        text=_incident_names(incidents, x, on_left, last - first),
        textposition=np.where(on_left, "middle left", "middle right").tolist(),
        textfont={"size": 12},
        meta=((x - first) / (last - first or 1.0)).tolist(),  # positions in view, for component.js
    )


def _incident_names(incidents: Sequence[Incident], x: Floats, on_left: NDArray[np.bool_], width: float) -> list[str]:
    """Number and kind, or the number alone where the next marker is too near; `on_left`: names left of their marker."""
    names = []
    for index, incident in enumerate(incidents):
        distance = np.where(on_left[index], x[index] - x, x - x[index])
        distance[on_left != on_left[index]] /= 2  # two names share the room between the markers
        others = np.delete(distance, index)
        room = others[others >= 0].min(initial=np.inf)
        name = f"#{incident.number} {formatting.escape_plotly(formatting.incident_kind(incident.kind))}"
        fits = (len(name) + MARKER_LETTERS) * LETTER_WIDTH * width <= room
        names.append(name if fits else f"#{incident.number}")
    return names


def _incident_hover(incident: Incident) -> str:
    kind = formatting.escape_plotly(formatting.incident_kind(incident.kind))
    return f"incident {incident.number} detected: {kind} ({incident.state})"


def _add_interventions(drawn: DrawnMarks, panel: Panel, marks: Marks, run_axes: RunAxes) -> None:
    """A line over all panels at the step of the rewind, and an arrow to it from the step of the decision."""
    segments: dict[int | None, int] = {incident.number: incident.segment for incident in marks.incidents}
    for intervention in marks.interventions:
        order = marks.orders.get(intervention.number)
        target = rewound_step(intervention, order)
        if target is None:
            continue
        segment, steps = segments.get(intervention.incident), [target, intervention.details.get("decided_step", target)]
        if segment is None:  # an operator's order without an incident: no branch is known
            at, decided = run_axes.live.at(steps).tolist()
        else:
            at, decided = (run_axes.at(segment, step) for step in steps)
        below_names = {"y1": panel.top}  # of incidents, which it would strike through
        drawn.shapes.append(vertical_line(at, {"color": GREEN, "width": 1.4, "dash": "dash"}) | below_names)
        look: dict[str, Any] = {"line": {"color": GREEN, "width": 1.6}, "marker": ARROW_HEAD}
        sentence = formatting.intervention_sentence(intervention, order)
        texts = [f"intervention {intervention.number} ({intervention.state}): {sentence}"] * 2
        heights = [ARROW_HEIGHT] * 2
        arrow = _markers(panel.mark_axis, [at, decided], heights, "intervention", texts, mode="lines+markers", **look)
        drawn.traces.append(arrow)
        if intervention.skip_from is not None and intervention.skip_to is not None:
            # Batches are not steps: the skipped ones are marked where the run continues without them.
            at = float(run_axes.live.at([target])[0])
            count = formatting.plural(intervention.skip_to - intervention.skip_from, "batch", "batches")
            text = f"skipped from here: {count} ({wording.batches(intervention.skip_from, intervention.skip_to)})"
            marker = {"symbol": "square-x-open", "size": 11, "color": ORANGE, "line": {"width": 1.6}}
            drawn.traces.append(_markers(panel.mark_axis, [at], [0.0], "skipped batches", [text], marker=marker))


def _add_events(drawn: DrawnMarks, panels: list[Panel], marks: Marks, run_axes: RunAxes) -> None:
    """Declared events as dotted lines with a diamond; ignored outliers as open circles at their value."""
    declared = [
        event
        for event in marks.events
        if event.step is not None and event.kind != OUTLIER and not says_source(event.kind, event.details)
    ]
    for event in declared:
        line = {"color": GREY, "width": 1, "dash": "dot"}
        shape = vertical_line(run_axes.at(event.segment, event.step or 0), line)
        drawn.shapes.append(shape | {"layer": "below", "y1": panels[0].top})
    if declared:
        heights = [0.0] * len(declared)
        trace = _event_markers(panels[0].mark_axis, declared, run_axes, heights, "declared event", "diamond")
        drawn.traces.append(trace)
    for panel in panels:
        outliers = [event for event in marks.events if _is_outlier_of(event, panel.metric)]
        if outliers:
            low, high = panel.bounds
            values = [min(max(event.details["value"], low), high) for event in outliers]  # on the edge if beyond it
            trace = _event_markers(panel.value_axis, outliers, run_axes, values, "outlier, ignored", "circle-open")
            drawn.traces.append(trace)


def _is_outlier_of(event: Event, metric: str) -> bool:
    """True for a finite outlier of the metric: other values have a cross."""
    value = event.details.get("value")
    finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return event.kind == OUTLIER and event.step is not None and event.details.get("signal") == metric and finite


def _event_markers(
    axis: str, events: Sequence[Event], run_axes: RunAxes, y: Sequence[float], name: str, symbol: str
) -> dict[str, Any]:
    x = [run_axes.at(event.segment, event.step or 0) for event in events]
    texts = []
    for event in events:
        text = f"{formatting.words(event.kind)} {formatting.details(event.details)}".strip()
        text = text if len(text) <= MAX_HOVER_LETTERS else f"{text[:MAX_HOVER_LETTERS]} .."
        texts.append(formatting.escape_plotly(text))
    marker = {"symbol": symbol, "size": 8, "color": GREY}
    return _markers(axis, x, y, name, texts, before=f"{name}: ", marker=marker)


def _pins(panel: Panel, notes: Sequence[StepNote], run_axes: RunAxes) -> dict[str, Any]:
    """A pin at each step with notes: hover text shows one point of a trace at a step, so notes of one step share it.

    A pin is a marker, the end of its line, and a gap.
    """
    hovers: dict[int, list[str]] = {}
    for note in notes:
        text = textwrap.shorten(note.text, MAX_HOVER_LETTERS, placeholder=" ..")
        lines = textwrap.wrap(f"{text} ({note.author})", HOVER_LINE_LETTERS)
        hovers.setdefault(note.step, []).append("<br>".join(map(formatting.escape_plotly, lines)))
    x = run_axes.live.at(list(hovers)).repeat(3).tolist()
    y = [PIN_HEAD, PIN_POINT, None] * len(hovers)
    return _markers(
        panel.mark_axis,
        x,
        y,
        "note",
        ["<br>".join(texts) for texts in hovers.values() for _ in range(3)],
        before="note: ",
        mode="lines+markers",
        line={"color": OLIVE, "width": 2},
        marker=PIN_MARKER | {"size": [10, 0, 0] * len(hovers)},
    )


def _markers(
    axis: str,
    x: Sequence[float],
    y: Sequence[float | None],
    name: str,
    texts: Sequence[str],
    *,
    before: str = "",
    mode: str = "markers",
    **more: Any,
) -> dict[str, Any]:
    """`texts` are for the pointer, each after `before`."""
    hover = f"{before}%{{customdata}}"
    return scatter(axis, x, y, name, mode=mode, hover=hover, cliponaxis=False, customdata=texts, **more)


def num_skipped(series: Series) -> int:
    """Updates that were skipped on this line; what is no number of updates counts for nothing."""
    means = [0.0 if mean is None else mean for mean in series.mean]
    return round(sum(max(mean, 0.0) * count for mean, count in zip(means, series.count, strict=True)))


def _skipped_updates(panel: Panel, curve: Curve, run_axes: RunAxes) -> list[dict[str, Any]]:
    """Return one trace for the live line, and one for each discarded branch."""
    lines = [(curve.live, run_axes.live)]
    lines += [(series, run_axes.branches.get(segment, run_axes.live)) for segment, series in curve.discarded.items()]
    marker = {"symbol": "triangle-up-open", "size": 9, "color": ORANGE, "line": {"width": 1.8}}
    traces = []
    for series, step_axis in lines:
        if at := [place for place, most in enumerate(series.max) if most is not None and most > 0]:
            x = step_axis.at([series.first_step[place] for place in at]).tolist()
            texts = [_skipped_hover(series, place) for place in at]
            heights = [SKIPPED_HEIGHT] * len(at)
            traces.append(_markers(panel.mark_axis, x, heights, SKIPPED_UPDATE, texts, marker=marker))
    return traces


def _skipped_hover(series: Series, place: int) -> str:
    first, last = series.first_step[place], series.last_step[place]
    count = round((series.mean[place] or 0.0) * series.count[place])
    where = f"step {formatting.count(first)}" if first == last else f"steps {formatting.count(first)} to {last:,}"
    return f"{formatting.plural(count, 'update', 'updates')} skipped at {where}"
