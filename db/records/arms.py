"""The arms of interventions that a trainer has tried: what waiting, a rewind, a skip and a remedy each led to."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, JsonDict, Key, OnlyOfRun, Run, Str32


class TriedArm(Base):
    """One arm of an intervention."""

    __tablename__ = "arms"

    run_pk: Mapped[OnlyOfRun]
    intervention: Mapped[Key]
    arm: Mapped[Str32] = mapped_column(primary_key=True)
    """`lossguard.vocabulary.states.Arm`."""
    incident: Mapped[int]
    details: Mapped[JsonDict]
    """`lossguard.vocabulary.wire.ArmResult`, with the kind of the incident, the tier, the depth and the attempt."""


def save(
    session: Session, *, run: Run, incident: int, intervention: int, arms: Mapping[str, Mapping[str, Any]]
) -> None:
    """Keep the details of each arm; what is stored already stays as it is."""
    for arm, details in arms.items():
        if session.get(TriedArm, (run.pk, intervention, arm)) is None:
            values = {"run_pk": run.pk, "intervention": intervention, "arm": arm, "incident": incident}
            session.add(TriedArm(**values, details=dict(details)))
    session.flush()


def of_run(session: Session, *, run: Run) -> Sequence[TriedArm]:
    """Return all arms of a run, in the order of its interventions."""
    found = sa.select(TriedArm).where(TriedArm.run_pk == run.pk)
    return session.scalars(found.order_by(TriedArm.intervention, TriedArm.arm)).all()


def of_project(session: Session, *, project: str) -> Sequence[dict[str, Any]]:
    """The details of all arms of all runs of a project."""
    found = sa.select(TriedArm.details).join(Run, Run.pk == TriedArm.run_pk).where(Run.project == project)
    return session.scalars(found.order_by(TriedArm.run_pk, TriedArm.intervention)).all()
