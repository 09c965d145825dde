"""Experiments and runs of MLflow clients, as they are stored. The caller owns the transaction."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import MlflowExperiment, MlflowRun, Run
from db.runs import pages
from db.store import bulk
from db.store.engine import dialect_of

CHUNK = 200
"""Runs that are read at once."""
KEYS = (
    pages.Key(sa.type_coerce(Run.started_at, sa.Float(53)), True, float),
    pages.Key(sa.type_coerce(Run.id, sa.String), False, str),
)
DEFAULT_EXPERIMENT = 0, "Default"
"""Id and name of the experiment that every MLflow server has."""


def experiment(session: Session, *, number: int) -> MlflowExperiment | None:
    found = session.get(MlflowExperiment, number)
    return _default() if found is None and number == DEFAULT_EXPERIMENT[0] else found


def experiment_named(session: Session, *, name: str) -> MlflowExperiment | None:
    found = session.scalar(sa.select(MlflowExperiment).where(MlflowExperiment.name == name))
    return _default() if found is None and name == DEFAULT_EXPERIMENT[1] else found


def experiments(
    session: Session, *, name: str | None = None, offset: int = 0, limit: int
) -> Sequence[MlflowExperiment]:
    """A part of all experiments, the newest first, or of those of a project. The default one is the last."""
    found = sa.select(MlflowExperiment).order_by(MlflowExperiment.id.desc()).offset(offset).limit(limit)
    rows = session.scalars(found if name is None else found.where(MlflowExperiment.name == name)).all()
    has_default = name in (None, DEFAULT_EXPERIMENT[1]) and len(rows) < limit
    num_before = num_experiments(session) if name is None else 0
    return [*rows, _default()] if has_default and offset <= num_before else rows


def num_experiments(session: Session) -> int:
    """Number of experiments, without the default one."""
    return session.scalar(sa.select(sa.func.count()).select_from(MlflowExperiment)) or 0


def create_experiment(session: Session, *, name: str, tags: dict[str, Any], now: float) -> MlflowExperiment | None:
    """A new experiment; None when there is one of this name."""
    new = MlflowExperiment(name=name, tags=tags, created_at=now)
    try:
        with session.begin_nested():
            session.add(new)
    except sa.exc.IntegrityError:  # also when another collector has just created it
        return None
    return new


def create_run(session: Session, *, run: Run, experiment: int, user: str, tags: dict[str, Any]) -> MlflowRun:
    """Store what an MLflow client knows of a run that was just registered."""
    new = MlflowRun(run_pk=run.pk, experiment=experiment, user=user, params={}, tags=tags, inputs=[], state={})
    session.add(new)
    session.flush()
    return new


def run_named(session: Session, *, run_id: str) -> tuple[Run, MlflowRun] | None:
    """A run that an MLflow client reports."""
    found = sa.select(Run, MlflowRun).join(MlflowRun, MlflowRun.run_pk == Run.pk).where(Run.id == run_id)
    row = session.execute(found).first()
    return None if row is None else (row[0], row[1])


def runs(
    session: Session,
    *,
    experiments: Sequence[int],
    params: Sequence[tuple[str, str]] = (),
    tags: Sequence[tuple[str, str]] = (),
    after: str = "",
) -> Iterator[tuple[Run, MlflowRun]]:
    """The runs of these experiments with these params and tags, the newest first, those of one moment by id.

    They are read in chunks, each when it is needed. `after`: the `cursor` of the run before the first one. Raises
    BadCursor.
    """
    values = pages.cursor_values(after) if after else None
    if values is not None:
        pages.check_cursor(values, KEYS)
    dialect = dialect_of(session.get_bind())
    logged = ((MlflowRun.params, params), (MlflowRun.tags, tags))
    tests = [dialect.member(column, key) == value for column, wanted in logged for key, value in wanted]
    found = sa.select(Run, MlflowRun).join(MlflowRun, MlflowRun.run_pk == Run.pk)
    found = found.where(MlflowRun.experiment.in_(experiments), *tests).order_by(*(key.ordered for key in KEYS))
    while True:
        part = found if values is None else found.where(pages.after(KEYS, values))
        rows = session.execute(part.limit(CHUNK)).all()
        yield from ((run, logged_run) for run, logged_run in rows)
        if len(rows) < CHUNK:
            return
        values = _place(rows[-1][0])


def cursor(run: Run) -> str:
    """Return the place of a run in the list."""
    return pages.cursor_text(_place(run))


def _place(run: Run) -> list[float | str]:
    return [run.started_at, run.id]


def save_state(session: Session, *, run_pk: int, state: dict[str, Any], has_open_rows: bool) -> None:
    """Save what is known of the metrics of a run. It changes with every call, so it is written without being read."""
    statement = "UPDATE mlflow_runs SET state = ?, has_open_rows = ? WHERE run_pk = ?"
    bulk.run(session, statement, (json.dumps(state), has_open_rows, run_pk))


def runs_with_open_rows(session: Session, *, reported_before: float | None = None) -> Sequence[str]:
    """Ids of the runs of which rows wait for completion; of those that last reported before, in unix seconds."""
    found = sa.select(Run.id).join(MlflowRun, MlflowRun.run_pk == Run.pk).where(MlflowRun.has_open_rows)
    if reported_before is not None:
        found = found.where(Run.last_report_at < reported_before)
    return session.scalars(found).all()


def _default() -> MlflowExperiment:
    number, name = DEFAULT_EXPERIMENT
    return MlflowExperiment(id=number, name=name, tags={}, created_at=0.0)
