"""Writes what the detection concluded: incidents, interventions with their orders, and outliers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.models import Intervention as Row
from db.models import Run
from lossguard.vocabulary.protocol import encode_number, plain_json
from lossguard.vocabulary.states import IncidentState, InterventionState, OrderKind, Outcome
from monitor.detection import Effect, IncidentChanged, Intervention, InterventionChanged, Outlier
from monitor.detection.effects import INTERVENTION_TERMINAL
from monitor.ingestion import orders

WITHDRAWS_ITS_ORDER = (InterventionState.WITHDRAWN, InterventionState.REJECTED)
"""States of an intervention in which its order, if still open, is withdrawn."""
ENDS_A_HOLD = (InterventionState.WITHDRAWN, InterventionState.RELEASED)
OF_INCIDENT = ("number", "kind", "state", "signal", "onset_step", "detected_step", "peak_step", "end_step", "outcome")
OF_INTERVENTION = (
    *("number", "incident", "kind", "state", "attempt"),
    *("rewind_to", "skip_from", "skip_to", "lr_scale"),
)
"""Columns that have the name of their field; `details` has all fields."""


def write(
    session: Session, run: Run, effects: Iterable[Effect], *, segment: int, now: float, approved_by: str | None = None
) -> None:
    """Write the effects of steps on `segment`; what is known already is updated.

    `approved_by`: who has decided them, if it was a person.
    """
    for effect in effects:
        match effect:
            case IncidentChanged(incident):
                values: dict[str, Any] = {name: getattr(incident, name) for name in OF_INCIDENT}
                values["score"] = incident.score if math.isfinite(incident.score) else None
                details = plain_json(asdict(incident))
                commands.save_incident(session, run=run, segment=segment, now=now, details=details, **values)
            case InterventionChanged(intervention, choices):
                row = _write_intervention(session, run, intervention, choices, now)
                if intervention.state is InterventionState.ORDERED:
                    terms = orders.columns(session, run, row, segment=segment, approved_by=approved_by, now=now)
                    reason, sign = " ".join(intervention.reasons), orders.signer(session, run)
                    commands.issue_order(session, intervention=row, reason=reason, now=now, terms=terms, sign=sign)
            case Outlier(step=step, signal=signal):
                details = {"signal": signal, "value": encode_number(effect.value), "score": encode_number(effect.score)}
                place: dict[str, Any] = {"segment": segment, "step": step, "time": now}
                key = f"outlier-{segment}-{step}-{signal}"
                commands.add_event(session, run=run, key=key, kind=lineage.OUTLIER, details=details, **place)


def _write_intervention(
    session: Session, run: Run, intervention: Intervention, choices: Sequence[dict[str, Any]], now: float
) -> Row:
    values: dict[str, Any] = {name: getattr(intervention, name) for name in OF_INTERVENTION}
    details = plain_json(asdict(intervention) | ({"choices": list(choices)} if choices else {}))
    remedies = list(intervention.remedies)
    row = commands.save_intervention(session, run=run, now=now, remedies=remedies, details=details, **values)
    if intervention.state in WITHDRAWS_ITS_ORDER:
        order = queries.order_of(session, intervention=row)
        if order is not None:
            commands.withdraw_order(session, order=order, detail=f"the intervention is {row.state}", now=now)
    if intervention.kind is OrderKind.HOLD and intervention.state in ENDS_A_HOLD:
        status = commands.run_status_of(session, run=run, now=now)
        status.last_step_at, status.stall_after = now, None  # no step was due during the hold
    return row


def close_others(session: Session, run: Run, *, intervention: int | None, reason: str, now: float) -> None:
    """Close the incidents and interventions that are open, except this intervention: nothing follows them any more."""
    for row in queries.interventions(session, run=run):
        if row.number != intervention and row.state not in INTERVENTION_TERMINAL:
            row.details = {**row.details, "reasons": [*_reasons(row.details), reason]}
            row.state, row.changed_at = InterventionState.WITHDRAWN, now
            if (order := queries.order_of(session, intervention=row)) is not None:
                commands.withdraw_order(session, order=order, detail=reason, now=now)
    for found in queries.incidents(session, run=run):
        if found.state != IncidentState.CLOSED:
            reasons = [*_reasons(found.details), reason]
            found.details = {**found.details, "state": IncidentState.CLOSED, "reasons": reasons}
            found.state, found.outcome, found.changed_at = IncidentState.CLOSED, Outcome.ONGOING, now
            found.end_step = found.detected_step if found.end_step is None else found.end_step
    session.flush()


def _reasons(details: dict[str, Any]) -> list[Any]:
    reasons = details.get("reasons")
    return reasons if isinstance(reasons, list) else []
