"""What a list of all runs needs to know: cheap questions, the same cost however long the runs are."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Incident, Intervention


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one run."""

    open_incidents: int = 0
    interventions: int = 0
    waiting: int = 0
    """Interventions that wait for a person: proposed ones, and holds that were applied and not released."""


def tallies(session: Session) -> dict[int, Tally]:
    """Counts by `Run.pk`, of the runs that have any."""
    open_incidents = _count_by_run(session, Incident, Incident.state != "closed")
    interventions = _count_by_run(session, Intervention, sa.true())
    waiting = _count_by_run(session, Intervention, waits_for_a_person())
    return {
        pk: Tally(open_incidents.get(pk, 0), interventions.get(pk, 0), waiting.get(pk, 0))
        for pk in open_incidents.keys() | interventions.keys()
    }


def waits_for_a_person() -> sa.ColumnElement[bool]:
    held = sa.and_(Intervention.kind == "hold", Intervention.state == "applied")
    return sa.or_(Intervention.state == "proposed", held)


def _count_by_run(
    session: Session, table: type[Incident] | type[Intervention], condition: sa.ColumnElement[bool]
) -> dict[int, int]:
    found = sa.select(table.run_pk, sa.func.count()).where(condition).group_by(table.run_pk)
    return {pk: count for pk, count in session.execute(found)}
