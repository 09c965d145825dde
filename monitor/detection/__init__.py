"""Detection: incidents in the metrics of a run, and the interventions that follow. Pure: values in, values out."""

from monitor.detection.effects import (
    INCIDENT_TRANSITIONS,
    INTERVENTION_TRANSITIONS,
    Effect,
    IllegalTransition,
    Incident,
    IncidentChanged,
    IncidentEvent,
    Intervention,
    InterventionChanged,
    InterventionEvent,
    Outlier,
    advance,
)
from monitor.detection.engine import DetectionEngine
from monitor.detection.rows import Row, Rows
from monitor.detection.settings import DetectionSettings, Mode, Policy

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
    "Intervention",
    "InterventionChanged",
    "InterventionEvent",
    "Mode",
    "Outlier",
    "Policy",
    "Row",
    "Rows",
    "advance",
]
