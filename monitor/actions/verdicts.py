"""The verdict of a replay: the cause of an incident."""

from typing import Any

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Incident
from db.records import access
from monitor.ingestion import runs
from monitor.problems import unknown


def find_incident(session: Session, run_id: str, number: int) -> Incident:
    """Raises Problem 404 when there is no such run or incident."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    incident = queries.incident_numbered(session, run=run, number=number)
    if incident is None:
        raise unknown("incident", number)
    return incident


def record_verdict(
    session: Session, run_id: str, number: int, verdict: dict[str, Any], *, who: str, now: float
) -> Incident:
    """Write a verdict to the incident; it replaces an earlier one. Raises Problem 404.

    A verdict decides nothing, so a trainer's token is enough. The audit trail keeps who wrote it.
    """
    run = runs.lock(session, run_id)
    incident = find_incident(session, run_id, number)
    commands.save_verdict(session, incident=incident, verdict=verdict, now=now)
    details = {"incident": number, **{name: verdict[name] for name in ("cause", "sentence", "culprits", "version")}}
    access.record(session, who=who, action="verdict", run=run.id, details=details, now=now)
    return incident
