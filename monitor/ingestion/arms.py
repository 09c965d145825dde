"""The arms that trainers have tried: from their reports into the store, and from there to the policy."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import queries
from db.models import Order, Run
from db.records import arms
from lossguard.vocabulary.wire import ArmsTried
from monitor.detection import DetectionEngine
from monitor.detection.interventions.decision import Records


def take(session: Session, run: Run, engine: DetectionEngine, reported: Sequence[ArmsTried]) -> None:
    """Store what was reported. Arms of an order that this store does not know are left out."""
    interventions = {each.number: each for each in queries.interventions(session, run=run)}
    for tried in reported:
        order = session.get(Order, tried.order) if tried.order < 2**31 else None
        if order is None or order.run_pk != run.pk:
            continue
        row = interventions[order.intervention]
        incident = None if row.incident is None else queries.incident_numbered(session, run=run, number=row.incident)
        if incident is not None:
            depth = max(0, incident.onset_step - tried.rewind_to)
            known = {"kind": incident.kind, "attempt": row.attempt, "tier": tried.tier, "depth": depth}
            details = {each.arm.value: {**each.to_details(), **known} for each in tried.results}
            arms.save(session, run=run, incident=incident.number, intervention=row.number, arms=details)
    give(session, run, engine)


def give(session: Session, run: Run, engine: DetectionEngine) -> None:
    """Let the policy of the run know of all arms of its project."""
    engine.response.records = Records.of(arms.of_project(session, project=run.project))
