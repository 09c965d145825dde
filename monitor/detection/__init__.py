"""Detection: which steps of a run are trouble, and what is done about it. Pure: values in, values out."""

from monitor.detection.effects import (
    Effect,
    Incident,
    IncidentChanged,
    IncidentKind,
    Intervention,
    InterventionChanged,
    InterventionKind,
    Outcome,
    Outlier,
)
from monitor.detection.engine import DetectionEngine
from monitor.detection.incidents.states import (
    INCIDENT_TRANSITIONS,
    INTERVENTION_TRANSITIONS,
    IllegalTransition,
    IncidentEvent,
    IncidentState,
    InterventionEvent,
    InterventionState,
    advance,
)
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.rows import Rows
from monitor.detection.settings import DetectionSettings

__all__ = [
    "INCIDENT_TRANSITIONS",
    "INTERVENTION_TRANSITIONS",
    "DetectionEngine",
    "DetectionSettings",
    "Effect",
    "IllegalTransition",
    "Incident",
    "IncidentChanged",
    "IncidentEvent",
    "IncidentKind",
    "IncidentState",
    "Intervention",
    "InterventionChanged",
    "InterventionEvent",
    "InterventionKind",
    "InterventionState",
    "Mode",
    "Outcome",
    "Outlier",
    "Policy",
    "Rows",
    "advance",
]
