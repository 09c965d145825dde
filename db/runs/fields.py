"""Fields of every run by which lists are searched, filtered and sorted, as SQL of one row of `runs`."""

from typing import Any

import sqlalchemy as sa

from db.models import Incident, Intervention, Run, RunStatus, Segment
from db.run_states import SILENT, is_silent_in_sql, needs_a_person_in_sql
from lossguard.vocabulary.states import NEED_A_PERSON, IncidentState, RunState

NEEDS_A_PERSON = "needs a person"
SHOWN_STATES = (
    NEEDS_A_PERSON,
    RunState.RUNNING.value,
    SILENT,
    RunState.FINISHED.value,
    RunState.INTERRUPTED.value,
    RunState.FAILED.value,
)
"""States of runs in lists: each run has the first of these that holds."""

title: sa.ColumnElement[str] = sa.func.coalesce(sa.func.nullif(Run.name, ""), Run.id)
"""The name of a run, or its id."""
TEXTS: dict[str, sa.ColumnElement[str]] = {
    "project": sa.type_coerce(Run.project, sa.String),
    "name": title,
    "id": sa.type_coerce(Run.id, sa.String),
    "host": sa.func.coalesce(Run.host, ""),
    "command": sa.func.coalesce(Run.command, ""),
    "note": sa.func.coalesce(Run.note, ""),
}
"""Texts by the name that a search has for them."""


def is_unanswered(is_running: sa.ColumnElement[bool] = Run.state == RunState.RUNNING) -> sa.ColumnElement[bool]:
    """An open incident of a running run that only a person ends: no policy answers its kind. A run that has ended asks
    for nothing any more."""
    return sa.and_(Incident.state == IncidentState.OPEN, Incident.kind.in_(NEED_A_PERSON), is_running)


def needs_a_person() -> sa.ColumnElement[bool]:
    """Return SQL that is true if something of the run waits for an operator: see `db.runs.overview.Tally.waiting`."""
    asked = sa.select(Intervention.run_pk).where(needs_a_person_in_sql())
    left = sa.select(Incident.run_pk).join(Run, Run.pk == Incident.run_pk).where(is_unanswered())
    return sa.or_(Run.pk.in_(asked), Run.pk.in_(left))


def is_shown_as(state: str, now: float) -> sa.ColumnElement[bool]:
    """Return SQL that is true if lists show the run as this one of SHOWN_STATES."""
    if state == NEEDS_A_PERSON:
        return needs_a_person()
    if state == SILENT:
        return sa.and_(is_silent_in_sql(now), ~needs_a_person())
    return sa.and_(Run.state == state, ~is_silent_in_sql(now), ~needs_a_person())


def numbers() -> dict[str, sa.ColumnElement[Any]]:
    """Counts, by the name that a search has for them."""
    is_open = Incident.state != IncidentState.CLOSED
    return {
        "steps": steps(),
        "incidents": _count(Incident, sa.true()),
        "open_incidents": _count(Incident, is_open),
        "interventions": _count(Intervention, sa.true()),
        "waiting": _count(Intervention, needs_a_person_in_sql()) + _count(Incident, is_unanswered()),
    }


def steps() -> sa.ColumnElement[Any]:
    """The number of the newest step plus 1: as reports said it, else as the segments have it."""
    reported = sa.select(RunStatus.step).where(RunStatus.run_pk == Run.pk).correlate(Run).scalar_subquery()
    newest = sa.select(sa.func.max(Segment.last_step)).where(Segment.run_pk == Run.pk).correlate(Run).scalar_subquery()
    return sa.func.coalesce(reported, newest, -1) + 1


def open_incidents() -> sa.ColumnElement[Any]:
    return _count(Incident, Incident.state != IncidentState.CLOSED)


def _count(table: type[Incident] | type[Intervention], condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    found = sa.select(sa.func.count()).select_from(table).where(table.run_pk == Run.pk, condition)
    return found.correlate(Run).scalar_subquery()
