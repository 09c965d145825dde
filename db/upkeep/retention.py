"""How long the ended runs of each project are kept. The caller owns the transaction."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Retention, Run
from lossguard.vocabulary.states import RunState

SECONDS_PER_DAY = 86_400


def set_days(session: Session, *, project: str, days: float | None, now: float) -> None:
    """Keep the ended runs of the project for so many days; None: for good."""
    row = session.get(Retention, project) or Retention(project=project)
    row.days, row.changed_at = days, now
    session.add(row)
    session.flush()


def unset(session: Session, *, project: str) -> bool:
    """Let the days of `prune` count for the project again: whether it had days of its own."""
    row = session.get(Retention, project)
    if row is not None:
        session.delete(row)
        session.flush()
    return row is not None


def by_project(session: Session) -> dict[str, float | None]:
    """The days of the projects that have their own; None: for good."""
    return {row.project: row.days for row in session.scalars(sa.select(Retention).order_by(Retention.project))}


def expired(session: Session, *, days: float | None, now: float) -> Sequence[Run]:
    """Runs that ended and last reported longer ago than their project keeps them, the oldest first.

    `days` counts for projects without days of their own; None: those keep all.
    """
    kept = sa.case((Retention.project.is_(None), sa.literal(days, sa.Float)), else_=Retention.days)
    found = (
        sa.select(Run)
        .outerjoin(Retention, Retention.project == Run.project)
        .where(Run.state != RunState.RUNNING, Run.last_report_at < now - kept * SECONDS_PER_DAY)
    )
    return session.scalars(found.order_by(Run.last_report_at)).all()
