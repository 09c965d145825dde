"""Writes what the detection concluded: incidents, interventions with their orders, and outliers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.models import Intervention as Row
from db.models import Run
from lossguard.vocabulary.protocol import encode_number
from lossguard.vocabulary.states import IncidentState, InterventionState, Outcome
from lossguard.vocabulary.values import plain_json
from monitor.detection import Effect, Incident, IncidentChanged, Intervention, InterventionChanged, Outlier
from monitor.detection.effects import INTERVENTION_TERMINAL
from monitor.ingestion import orders

WITHDRAWS_ITS_ORDER = (InterventionState.WITHDRAWN, InterventionState.REJECTED)
"""States of an intervention in which its order, if still open, is withdrawn."""


def write(
    session: Session,
    run: Run,
    effects: Iterable[Effect],
    *,
    segment: int,
    now: float,
    approved_by: str | None = None,
) -> None:
    """Write the effects of steps on `segment`; what is known already is updated.

    `approved_by`: who has decided them, if it was a person.
    """
    for effect in effects:
        match effect:
            case IncidentChanged(incident):
                _write_incident(session, run, incident, segment, now)
            case InterventionChanged(intervention, choices):
                row = _write_intervention(session, run, intervention, choices, now)
                if intervention.state is InterventionState.ORDERED:
                    terms = orders.columns(session, run, row, segment=segment, approved_by=approved_by, now=now)
                    reason, sign = " ".join(intervention.reasons), orders.signer(session, run)
                    commands.issue_order(session, intervention=row, reason=reason, now=now, terms=terms, sign=sign)
            case Outlier():
                _write_outlier(session, run, effect, segment, now)


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


def _write_incident(session: Session, run: Run, incident: Incident, segment: int, now: float) -> None:
    commands.save_incident(
        session,
        run=run,
        number=incident.number,
        segment=segment,
        now=now,
        kind=incident.kind,
        state=incident.state,
        signal=incident.signal,
        onset_step=incident.onset_step,
        detected_step=incident.detected_step,
        peak_step=incident.peak_step,
        end_step=incident.end_step,
        score=incident.score if math.isfinite(incident.score) else None,
        outcome=incident.outcome,
        details=plain_json(asdict(incident)),
    )


def _write_intervention(
    session: Session, run: Run, intervention: Intervention, choices: Sequence[dict[str, Any]], now: float
) -> Row:
    row = commands.save_intervention(
        session,
        run=run,
        number=intervention.number,
        now=now,
        incident=intervention.incident,
        kind=intervention.kind,
        state=intervention.state,
        attempt=intervention.attempt,
        rewind_to=intervention.rewind_to,
        skip_from=intervention.skip_from,
        skip_to=intervention.skip_to,
        lr_scale=intervention.lr_scale,
        remedies=list(intervention.remedies),
        details=plain_json(asdict(intervention) | ({"choices": list(choices)} if choices else {})),
    )
    if intervention.state in WITHDRAWS_ITS_ORDER:
        order = queries.order_of(session, intervention=row)
        if order is not None:
            commands.withdraw_order(session, order=order, detail=f"the intervention is {row.state}", now=now)
    return row


def _write_outlier(session: Session, run: Run, outlier: Outlier, segment: int, now: float) -> None:
    commands.add_event(
        session,
        run=run,
        key=f"outlier-{segment}-{outlier.step}-{outlier.signal}",
        segment=segment,
        step=outlier.step,
        time=now,
        kind=lineage.OUTLIER,
        details={
            "signal": outlier.signal,
            "value": encode_number(outlier.value),
            "score": encode_number(outlier.score),
        },
    )
