"""What a report tells of a run: read through the same modules as the pages, and bounded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dashboard.data import cached, incident_window, throughput
from dashboard.data.facts import Curve, RunFacts
from dashboard.data.incident_window import Closeup
from dashboard.data.rollback_costs import WayBack
from dashboard.data.run_lookup import NoSuchRun
from db.models import Incident, Intervention
from lossguard.metrics import COLUMNS

CURVES = ("loss", "perplexity", "grad_norm", "log_z", "lr", throughput.REPORTED, throughput.NAME)
MOST_CURVES = 24
MOST_PICTURES = 100
"""Incidents that get a picture: those that are open, then those that were acted on, then the highest scores."""
MOST_EPISODES = 300
"""Incidents that get a section of their own; all others stand in the list of incidents."""


@dataclass(frozen=True, slots=True)
class Story:
    known: RunFacts
    curves: Mapping[str, Curve]
    without: Sequence[str]
    """Metrics that are left out: they are too many."""
    lost: Sequence[WayBack]
    written_at: float
    """Unix seconds."""
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class Episode:
    """One incident, and what was done about it."""

    incident: Incident
    deeds: list[Intervention]
    seen: Closeup | None
    """None where it gets no picture."""


def read_story(run_id: str, *, now: float, zone: tzinfo) -> Story:
    """Raises StoreAway, and NoSuchRun when the run is not there (any more)."""
    known = cached.facts(run_id)
    if known is None:
        raise NoSuchRun(f"there is no run {run_id!r} in this store")
    names = curve_names(known.metrics)
    curves = cached.curves(known, names[:MOST_CURVES]).by_metric
    return Story(known, curves, names[MOST_CURVES:], cached.lost(known), now, zone)


def curve_names(metrics: Sequence[str]) -> list[str]:
    """The usual ones, then whatever else the loop logs; of the standard ones not those that only count."""
    usual = [name for name in CURVES if name in metrics]
    return usual + [name for name in metrics if name not in COLUMNS and name not in usual]


def episodes(known: RunFacts) -> Iterator[Episode]:
    """What matters most first; read one after the other."""
    for rank, incident in enumerate(ranked(known)[:MOST_EPISODES]):
        seen = incident_window.closeup(known, incident) if rank < MOST_PICTURES else None
        yield Episode(incident, incident_window.interventions_of(known, incident), seen)


def ranked(known: RunFacts) -> list[Incident]:
    acted = {each.incident for each in known.interventions}
    return sorted(
        known.incidents,
        key=lambda each: (each.state == "closed", each.number not in acted, -(each.score or 0.0), -each.number),
    )
