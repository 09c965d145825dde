"""What lists show and search of a run whose reports left no status: one that was imported from a file."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Run, RunStatus
from db.overview import summaries
from db.runs.conditions import IN_STATUS
from lossguard.protocol import encode_number
from lossguard.states import RunState


def fill_in(session: Session, *, run: Run) -> None:
    """Write the newest step and values, as the run's reports would have left them."""
    names = IN_STATUS.intersection(queries.metric_names(session, run=run))
    found = summaries(session, runs=[run], metrics=sorted(names))[run.pk]
    status = commands.run_status_of(session, run=run, now=run.last_report_at)
    status.step = found.steps - 1 if found.stored_steps else None
    status.latest_values = {name: encode_number(metric.last) for name, metric in found.metrics.items()}


def missing(session: Session) -> Sequence[str]:
    """The ids of ended runs without a status: earlier releases wrote none when they imported a file."""
    without = sa.select(Run.id).outerjoin(RunStatus, RunStatus.run_pk == Run.pk).where(RunStatus.run_pk.is_(None))
    return session.scalars(without.where(Run.state != RunState.RUNNING).order_by(Run.pk)).all()
