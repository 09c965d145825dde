"""Small stored runs for the tests."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Session

from db import commands, migrate, queries
from db.models import Run, Segment
from db.records import arms, step_notes
from db.runs import pages
from db.runs.filters import RunFilter
from db.steps import writer
from db.store.engine import writing
from lossguard.vocabulary.run_search import RunOrder
from lossguard.vocabulary.states import OrderState, RunState, SegmentReason

NOW = 1_000_000.0


def add_run(session: Session, run_id: str = "r1", **values: Any) -> Run:
    defaults: dict[str, Any] = {
        "id": run_id,
        "project": "gpt",
        "name": None,
        "config": {"lr": 1e-3},
        "command": "python train.py",
        "git_commit": None,
        "host": "h",
        "devices": ["cpu"],
        "versions": {},
        "capabilities": ["rollback"],
        "policy": None,
        "total_steps": 600,
        "started_at": NOW,
    }
    return commands.register_run(session, values=defaults | values, now=NOW)[0]


def add_segment(session: Session, run: Run, key: str, fork_step: int | None = 0) -> Segment:
    reason = SegmentReason.START if fork_step == 0 else SegmentReason.ROLLBACK
    return commands.open_segment(
        session, run=run, key=key, fork_step=fork_step, reason=reason, order_id=None, opened_at=NOW
    )


def add_steps(
    session: Session, run: Run, segment: Segment, steps: Sequence[int], /, **metrics: Sequence[float | None]
) -> None:
    columns: Mapping[str, Sequence[float | None]] = metrics or {"loss": [float(step) for step in steps]}
    times = [NOW + step for step in steps]
    writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=columns)


def add_rollbacks(session: Session, run: Run, count: int) -> None:
    """`count` segments of ten steps, each of which rolls back half of the one before, so the live line is long."""
    for number in range(count):
        segment = add_segment(session, run, str(number), fork_step=5 * number)
        segment.opened_at = NOW + 10 * number
        steps = range(5 * number, 5 * number + 10)
        columns = {"loss": [1.0] * 10, "tokens": [100.0 * step for step in steps]}
        times = [segment.opened_at + at for at in range(1, 11)]
        writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=columns)


def end_run(session: Session, run: Run, at: float = NOW) -> None:
    commands.finish_run(session, run=run, state=RunState.FINISHED, at=at, now=at)


def stored_run(session: Session, run_id: str = "r1") -> Run:
    """The run with this id."""
    run = queries.run_named(session, run_id=run_id)
    assert run is not None
    return run


def statements_of(engine: sa.Engine) -> list[str]:
    """The statements that are executed from now on."""
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    return statements


def num_calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls: what it costs, whatever else the machine does."""
    calls, before = 0, sys.getprofile()

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def add_incident_records(session: Session, run: Run, details: Mapping[str, Any]) -> None:
    """An incident, the order about it, what it skipped, an event, and what could be restored."""
    run.restorable_steps = [0, 2]
    run.restorable_tiers = [
        {"tier": "memory", "steps": [2], "load_seconds": 0.5, "save_seconds": 0.01},
        {"tier": "disk", "steps": [0], "load_seconds": None, "save_seconds": None},
    ]
    values: dict[str, Any] = {
        "kind": "loss_spike",
        "state": "closed",
        "signal": "loss",
        "onset_step": 3,
        "detected_step": 4,
    }
    commands.save_incident(
        session, run=run, number=1, segment=0, now=NOW, score=8.5, outcome=None, details=dict(details), **values
    )
    requested: dict[str, Any] = {"rewind_to": 2, "skip_from": 2, "skip_to": 9, "lr_scale": None}
    requested["remedies"] = ["clip"]
    done = commands.save_intervention(
        session,
        run=run,
        number=1,
        now=NOW,
        incident=1,
        kind="rollback",
        state="verified",
        attempt=1,
        details={},
        **requested,
    )
    order = commands.issue_order(session, intervention=done, reason="because", now=NOW)
    answer: dict[str, Any] = {"rewound_to": 2, "skip_from": 2, "skip_to": 9, "detail": "", "now": NOW}
    commands.answer_order(session, order=order, state=OrderState.APPLIED, **answer)
    for segment in queries.segments(session, run=run)[1:2]:
        segment.order_id = order.id
    event: dict[str, Any] = {"segment": 0, "step": None, "time": NOW, "kind": "learning_rate"}
    commands.add_event(session, run=run, key="e1", details=details, **event)
    arms.save(session, run=run, incident=1, intervention=1, arms={"wait": dict(details)})
    step_notes.add_step_note(session, run=run, step=3, text="a note", author="Ada (token t)", now=NOW)
    commands.save_detection_state(session, run=run, state={"bank": dict(details)}, segment=0, seen_step=3)
    commands.finish_run(session, run=run, state=RunState.FAILED, at=NOW + 9, now=NOW + 9)


SPOILED: Mapping[str, Any] = {
    "config": [1],
    "devices": {"a": 1},
    "versions": [2],
    "capabilities": "rollback",
    "restorable_steps": 3,
    "policy": {"mode": "hacked", "detection": {"nonsense": 1}},
    "state": "hacked",
    "started_at": 1e300,
    "last_report_at": -1e300,
    "finished_at": 1e12,
    "total_steps": -5,
}
"""Columns of a run as the imports of earlier releases took them."""


def spoil(engine: sa.Engine, run_id: str, values: Mapping[str, Any] = SPOILED) -> None:
    """Store these values of a run unchecked."""
    with engine.begin() as connection:
        connection.execute(sa.update(Run).where(Run.id == run_id).values(**values))


def before_statement(engine: sa.Engine, text: str, do: Callable[[], None]) -> None:
    """Call `do` once, right before the first statement that holds `text`."""
    calls = [do]

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if calls and text in statement:
            calls.pop()()

    sa.event.listen(engine, "before_cursor_execute", listen)


def make_pre_release(engine: sa.Engine, mark: str | None) -> None:
    """Make a store, with a run, one that a pre-release at this revision left; None: it has no revision."""
    with writing(engine) as session:
        add_run(session)
        if mark is None:
            session.execute(sa.text("DELETE FROM alembic_version"))
        elif mark == "0001":  # steps with a column for each metric
            session.execute(sa.text('ALTER TABLE steps RENAME COLUMN "values" TO extra'))
        else:
            session.execute(sa.text("UPDATE alembic_version SET version_num = :mark"), {"mark": mark})


def contents(engine: sa.Engine) -> dict[str, list[str]]:
    """Every row of every table."""
    tables = sa.MetaData()
    with engine.connect() as connection:
        tables.reflect(connection)
        return {name: sorted(map(repr, connection.execute(sa.select(table)))) for name, table in tables.tables.items()}


LATER = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, compatible_from = "9999", "{newest}", "{compatible_from}"
def upgrade():
{upgrade}
def downgrade():
    op.drop_table("later")
"""


def newest_revision() -> str:
    return str(ScriptDirectory(str(migrate.MIGRATIONS)).get_current_head())


def bring_later_release(
    folder: Path, patch: pytest.MonkeyPatch, upgrade: str, *, compatible_from: str | None = None
) -> None:
    """Let there be one more migration, 9999, that does this."""
    newest, migrations = newest_revision(), folder / "migrations"
    # Other processes may be writing their bytecode beside the files.
    shutil.copytree(migrate.MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    text = LATER.format(newest=newest, upgrade=upgrade, compatible_from=compatible_from or newest)
    (migrations / "versions" / "9999_later.py").write_text(text)
    patch.setattr(migrate, "MIGRATIONS", migrations)


def ids_of_runs(session: Session, where: RunFilter, order: RunOrder = RunOrder.NEWEST) -> list[str]:
    """The ids of all runs that a list shows."""
    found = pages.page(session, where=where, order=order, limit=None, now=NOW, columns=("pk", "id"))
    return [run.id for run in found.runs]
