"""Layers of the policy: the collector's, the projects' and the runs'. The caller owns the transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import PolicyLayer, Run
from db.store import bulk
from lossguard.vocabulary.states import Layer, RunState

COLLECTOR = "collector"
"""Key of the collector's layer."""


ALL = "lock"
"""Key of a row that is no layer: whoever changes any layer locks it, because layers are valid only together."""


def project_key(project: str) -> str:
    return f"project:{project}"


def run_key(run_id: str) -> str:
    return f"run:{run_id}"


def layers(session: Session, *, project: str | None = None, run_id: str | None = None) -> dict[Layer, dict[str, Any]]:
    """The fields of the stored layers of a run (or of a project, or of the collector)."""
    names = {COLLECTOR: Layer.COLLECTOR}
    if project is not None:
        names[project_key(project)] = Layer.PROJECT
    if run_id is not None:
        names[run_key(run_id)] = Layer.RUN
    rows = session.scalars(sa.select(PolicyLayer).where(PolicyLayer.key.in_(names))).all()
    return {names[row.key]: row.fields for row in rows}


def lock(session: Session, *, key: str) -> None:
    """Lock the row until the transaction ends; it is made, empty, if there is none."""
    statement = (
        "INSERT INTO policy_layers (key, fields, changed_at, changed_by, by_operator) VALUES (?, '{}', 0, '', ?)"
        " ON CONFLICT (key) DO UPDATE SET key = excluded.key"
    )
    bulk.run(session, statement, (key, True))


def set_fields(
    session: Session,
    *,
    key: str,
    fields: Mapping[str, Any],
    who: str,
    now: float,
    run: Run | None = None,
    by_operator: bool = True,
) -> None:
    """Replace the fields of a layer; `run`: the run whose layer it is. Not `by_operator`: its loop says so."""
    row = session.scalar(sa.select(PolicyLayer).where(PolicyLayer.key == key))
    if row is None:
        row = PolicyLayer(key=key, run_pk=None if run is None else run.pk)
        session.add(row)
    row.fields, row.changed_at, row.changed_by, row.by_operator = dict(fields), now, who, by_operator
    session.flush()


def is_set_by_operator(session: Session, *, run: Run) -> bool:
    found = sa.select(PolicyLayer.by_operator).where(PolicyLayer.run_pk == run.pk)
    return bool(session.scalar(found))


def projects(session: Session) -> dict[str, dict[str, Any]]:
    """The fields that projects set, by project."""
    prefix = project_key("")
    rows = session.scalars(sa.select(PolicyLayer).where(PolicyLayer.key.startswith(prefix, autoescape=True))).all()
    return {row.key.removeprefix(prefix): row.fields for row in rows}


def running(session: Session, *, project: str | None = None) -> Sequence[tuple[str, str, dict[str, Any]]]:
    """(id, project, fields of its own layer) of the runs that have not ended, in the order of their ids."""
    found = (
        sa.select(Run.id, Run.project, PolicyLayer.fields)
        .outerjoin(PolicyLayer, PolicyLayer.run_pk == Run.pk)
        .where(Run.state == RunState.RUNNING)
        .order_by(Run.id)
    )
    rows = session.execute(found if project is None else found.where(Run.project == project))
    return [(run_id, name, fields or {}) for run_id, name, fields in rows]


def is_first_of_project(session: Session, *, run: Run) -> bool:
    other = sa.select(Run.pk).where(Run.project == run.project, Run.pk < run.pk).limit(1)
    return session.scalar(other) is None
