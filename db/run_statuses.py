"""Where each run stands, for a list of all of them: one query, whose cost does not depend on the length of the runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import RunStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest step of a run and the last value of each metric that a chart shows."""

    step: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Non-finite numbers encoded."""


def standings(session: Session) -> dict[int, Standing]:
    """By `Run.pk`, of the runs that have reported."""
    found = sa.select(RunStatus.run_pk, RunStatus.step, RunStatus.latest_values)
    return {pk: Standing(step, values) for pk, step, values in session.execute(found)}
