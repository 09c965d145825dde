"""What a report tells of a run: read through the same modules as the pages, and bounded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dashboard.data import cached, incident_window, throughput
from dashboard.data.facts import Curve, RunFacts
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.rollback_costs import Rewind
from dashboard.data.run_lookup import NoSuchRun
from db.models import Incident, Intervention
from lossguard.metrics import COLUMNS

CURVES = ("loss", "perplexity", "grad_norm", "log_z", "lr", throughput.REPORTED, throughput.DERIVED)
MAX_CURVES = 24
MAX_PICTURES = 100
"""Incidents that get a picture: those that are open, then those that were acted on, then the highest scores."""
MAX_INCIDENT_SECTIONS = 300
"""Incidents that get a section of their own; all others stand in the list of incidents."""


@dataclass(frozen=True, slots=True)
class ReportContents:
    facts: RunFacts
    curves: Mapping[str, Curve]
    without: Sequence[str]
    """Metrics that are left out: they are too many."""
    lost: Sequence[Rewind]
    written_at: float
    """Unix seconds."""
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class ReportIncident:
    """One incident, and what was done about it."""

    incident: Incident
    deeds: list[Intervention]
    seen: IncidentWindow | None
    """None where it gets no picture."""


def read_contents(run_id: str, *, now: float, zone: tzinfo) -> ReportContents:
    """Raises StoreAway, and NoSuchRun when the run is not there (any more)."""
    facts = cached.facts(run_id)
    if facts is None:
        raise NoSuchRun(f"there is no run {run_id!r} in this store")
    names = curve_names(facts.metrics)
    curves = cached.curves(facts, names[:MAX_CURVES]).by_metric
    return ReportContents(facts, curves, names[MAX_CURVES:], cached.rewinds(facts), now, zone)


def curve_names(metrics: Sequence[str]) -> list[str]:
    """The usual ones, then whatever else the loop logs; of the standard ones not those that only count."""
    usual = [name for name in CURVES if name in metrics]
    return usual + [name for name in metrics if name not in COLUMNS and name not in usual]


def report_incidents(facts: RunFacts) -> Iterator[ReportIncident]:
    """What matters most first; read one after the other."""
    for rank, incident in enumerate(ranked(facts)[:MAX_INCIDENT_SECTIONS]):
        seen = cached.incident_window(facts, incident) if rank < MAX_PICTURES else None
        yield ReportIncident(incident, incident_window.interventions_of(facts, incident), seen)


def ranked(facts: RunFacts) -> list[Incident]:
    acted = {each.incident for each in facts.interventions}
    return sorted(
        facts.incidents,
        key=lambda each: (each.state == "closed", each.number not in acted, -(each.score or 0.0), -each.number),
    )
