"""What a replay found about an incident."""

from typing import Any

from sqlalchemy.orm import Session

from db import access, commands, queries
from db.models import Incident
from monitor.ingestion.reports import locked
from monitor.problems import unknown


def incident(session: Session, run_id: str, number: int) -> Incident:
    """Raises Problem 404."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    found = queries.incident_numbered(session, run=run, number=number)
    if found is None:
        raise unknown("incident", number)
    return found


def record_verdict(
    session: Session, run_id: str, number: int, verdict: dict[str, Any], *, who: str, now: float
) -> Incident:
    """Write a verdict to the incident, in the stead of an earlier one. Raises Problem 404.

    It decides nothing, so a trainer's token will do; the audit trail keeps who said what.
    """
    run = locked(session, run_id)
    found = incident(session, run_id, number)
    commands.save_verdict(session, incident=found, verdict=verdict, now=now)
    told = {"incident": number, **{name: verdict[name] for name in ("cause", "sentence", "culprits", "version")}}
    access.record(session, who=who, action="verdict", run=run.id, details=told, now=now)
    return found
