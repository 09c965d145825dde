"""Detection: incidents in the metrics of a run, and the interventions that follow. Pure: values in, values out."""

from monitor.detection.effects import Effect, Incident, IncidentChanged, Intervention, InterventionChanged, Outlier
from monitor.detection.engine import DetectionEngine
from monitor.detection.incidents.states import (
    INCIDENT_TRANSITIONS,
    INTERVENTION_TRANSITIONS,
    IllegalTransition,
    IncidentEvent,
    InterventionEvent,
    advance,
)
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.row import Row
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
