"""Counts for a list of all runs: queries whose cost does not depend on the length of the runs."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.interventions import needs_a_person_in_sql
from db.models import Incident, Intervention, Run
from lossguard.states import IncidentKind, IncidentState, RunState

NEED_A_PERSON = (IncidentKind.REPLAY_MISMATCH, IncidentKind.STALL)
"""Kinds of incidents that neither a policy nor the run itself gets over."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one run."""

    open_incidents: int = 0
    interventions: int = 0
    waiting: int = 0
    """What needs an operator: proposed interventions, holds that were applied and not released, open incidents of a run
    that has ended, and stalls and replay mismatches, which no policy answers."""


def tallies(session: Session) -> dict[int, Tally]:
    """Counts by `Run.pk`, of the runs with an incident or an intervention."""
    open_incidents = _count_by_run(session, Incident, Incident.state != IncidentState.CLOSED)
    interventions = _count_by_run(session, Intervention, sa.true())
    waiting = _count_by_run(session, Intervention, needs_a_person_in_sql())
    ended = sa.select(Run.pk).where(Run.state != RunState.RUNNING)
    unanswered = sa.or_(Incident.run_pk.in_(ended), Incident.kind.in_(NEED_A_PERSON))
    left_open = sa.and_(Incident.state == IncidentState.OPEN, unanswered)
    unresolved = _count_by_run(session, Incident, left_open)
    return {
        pk: Tally(open_incidents.get(pk, 0), interventions.get(pk, 0), waiting.get(pk, 0) + unresolved.get(pk, 0))
        for pk in open_incidents.keys() | interventions.keys()
    }


def _count_by_run(
    session: Session, table: type[Incident] | type[Intervention], condition: sa.ColumnElement[bool]
) -> dict[int, int]:
    found = sa.select(table.run_pk, sa.func.count()).where(condition).group_by(table.run_pk)
    return {pk: count for pk, count in session.execute(found)}
