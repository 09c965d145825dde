"""An incident's figure, packed once for all viewers who look at it in the same way."""

import streamlit as st

from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import IncidentWindow, detection_key, interventions_of, rewound_step
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.component import PackedFigure
from dashboard.figures.incident import incident_figure
from db.models import Incident


def draw(facts: RunFacts, incident: Incident, seen: IncidentWindow, window: tuple[int, int] | None) -> PackedFigure:
    stamp = (*facts.marks_stamp, len(seen.original), len(seen.replacement) if seen.replacement is not None else 0)
    where = (seen.first, seen.last)
    judged = detection_key(facts)
    return _draw(database_url(), facts.run.id, incident.number, stamp, judged, where, window, facts, incident, seen)


@st.cache_resource(show_spinner=False, max_entries=64)
def _draw(
    url: str,
    run_id: str,
    number: int,
    stamp: tuple[float, ...],  # as the names before it, and the next, part of the key only
    judged: tuple[str, int],
    where: tuple[int, int],
    window: tuple[int, int] | None,
    _facts: RunFacts,
    _incident: Incident,
    _seen: IncidentWindow,
) -> PackedFigure:
    deeds = interventions_of(_facts, _incident)
    forks = [went for each in deeds if (went := rewound_step(_facts, each)) is not None]
    return component.pack(incident_figure(_seen, _incident, deeds, forks[-1] if forks else None, window))
