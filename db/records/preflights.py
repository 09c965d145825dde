"""Facts about a rollback that waits for approval: the store's about the run, and the trainer's answer."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import Intervention, PreflightAnswer, Run, RunStatus
from db.records.live_runs import RunPks
from lossguard.vocabulary.states import InterventionState, OrderKind


def proposed(session: Session, *, run_pks: RunPks) -> Sequence[Intervention]:
    """The interventions of these runs that wait for approval, in the order in which they were proposed."""
    found = sa.select(Intervention).where(
        Intervention.run_pk.in_(run_pks), Intervention.state == InterventionState.PROPOSED
    )
    return session.scalars(found.order_by(Intervention.run_pk, Intervention.number)).all()


def to_ask(session: Session, *, run: Run) -> Intervention | None:
    """The newest proposed rollback: the one about which the trainer is asked."""
    waiting = reversed(proposed(session, run_pks=[run.pk]))
    return next((each for each in waiting if each.kind == OrderKind.ROLLBACK and each.rewind_to is not None), None)


def answer_to(session: Session, *, intervention: Intervention) -> PreflightAnswer | None:
    """Return the last answer of the trainer about this intervention."""
    row = session.get(PreflightAnswer, intervention.run_pk)
    return row if row is not None and row.intervention == intervention.number else None


def save_answer(session: Session, *, run: Run, intervention: int, answer: dict[str, Any], now: float) -> int:
    """Keep the newest answer; return how many there were about this intervention."""
    row = session.get(PreflightAnswer, run.pk)
    if row is None:
        row = PreflightAnswer(run_pk=run.pk, intervention=intervention, num_answers=0)
        session.add(row)
    row.num_answers = 1 + (row.num_answers if row.intervention == intervention else 0)
    row.intervention, row.answer, row.answered_at = intervention, answer, now
    session.flush()
    return row.num_answers


def known(session: Session, *, run: Run, intervention: Intervention, now: float) -> dict[str, Any]:
    """The fields of `monitor.detection.interventions.preflight.Known`."""
    status = session.get(RunStatus, run.pk)
    incident = (
        None
        if intervention.incident is None
        else queries.incident_numbered(session, run=run, number=intervention.incident)
    )
    row = answer_to(session, intervention=intervention)
    return {
        "now": now,
        "kind": intervention.kind,
        "number": intervention.number,
        "rewind_to": intervention.rewind_to,
        "skip_from": intervention.skip_from,
        "skip_to": intervention.skip_to,
        "lr_scale": intervention.lr_scale,
        "proposed_at": intervention.created_at,
        "onset_step": None if incident is None else incident.onset_step,
        "state": run.state,
        "capabilities": tuple(run.capabilities),
        "devices": tuple(map(str, run.devices)),
        "config": run.config,
        "planned_steps": run.total_steps,
        "restorable_steps": tuple(run.restorable_steps),
        "restorable_tiers": tuple(run.restorable_tiers or ()),
        "last_report_at": run.last_report_at,
        "newest_step": None if status is None else status.step,
        "recent_reports": () if status is None else tuple(map(tuple, status.recent_reports)),
        "answered_at": None if row is None else row.answered_at,
        "answer": {} if row is None else row.answer,
    }
