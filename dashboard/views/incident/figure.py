"""The figure of an incident."""

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import IncidentWindow, detection_key, interventions_of, rewound_step
from dashboard.data.store import database_url
from dashboard.figures.component import PackedFigure
from dashboard.figures.incident import incident_figure
from dashboard.views.cached_figure import cached_figure
from db.models import Incident


def draw(facts: RunFacts, incident: Incident, around: IncidentWindow, window: tuple[int, int] | None) -> PackedFigure:
    """`around` holds the steps that were read; `window` is the first and the last step in view, None for all."""
    num_rows = (len(around.original), 0 if around.replacement is None else len(around.replacement))
    data = (facts.run.id, incident.number, facts.marks_stamp, detection_key(facts), num_rows)
    key = ("incident", database_url(), *data, around.first, around.last, window)
    return cached_figure(key, lambda: _figure(facts, incident, around, window))


def _figure(facts: RunFacts, incident: Incident, around: IncidentWindow, window: tuple[int, int] | None) -> go.Figure:
    interventions = interventions_of(facts, incident)
    rewound = [step for each in interventions if (step := rewound_step(facts, each)) is not None]
    return incident_figure(around, incident, interventions, rewound[-1] if rewound else None, window)
