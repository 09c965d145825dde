"""An incident's figure, packed once for all viewers who look at it in the same way."""

import streamlit as st

from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import Closeup, interventions_of, judged_by, went_to
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.component import Packed
from dashboard.figures.incident import incident_figure
from db.models import Incident


def draw(known: RunFacts, incident: Incident, seen: Closeup, window: tuple[int, int] | None) -> Packed:
    stamp = (*known.marks_stamp, len(seen.led), len(seen.after) if seen.after is not None else 0)
    where = (seen.first, seen.last)
    judged = judged_by(known)
    return _draw(database_url(), known.run.id, incident.number, stamp, judged, where, window, known, incident, seen)


@st.cache_resource(show_spinner=False, max_entries=64)
def _draw(
    url: str,
    run_id: str,
    number: int,
    stamp: tuple[float, ...],  # as the names before it, and the next, part of the key only
    judged: tuple[str, int],
    where: tuple[int, int],
    window: tuple[int, int] | None,
    _known: RunFacts,
    _incident: Incident,
    _seen: Closeup,
) -> Packed:
    deeds = interventions_of(_known, _incident)
    forks = [went for each in deeds if (went := went_to(_known, each)) is not None]
    return component.pack(incident_figure(_seen, _incident, deeds, forks[-1] if forks else None, window))
