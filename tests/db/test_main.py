"""The store's commands as a user runs them."""

import time

import sqlalchemy as sa
from typer.testing import CliRunner

from db import access, commands, queries
from db.__main__ import app
from db.engine import reading, writing
from db.models import Base
from lossguard.protocol import RunState
from tests.db.seed import add_run, add_segment, add_steps

DAY = 86_400


def runs_of_three_ages(engine: sa.Engine) -> None:
    """`old` ended 100 days ago, `young` yesterday, `going` never."""
    with writing(engine) as session:
        for run_id, age in (("old", 100), ("young", 1), ("going", 200)):
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(40))
            run.last_report_at = time.time() - age * DAY
            if run_id != "going":
                commands.finish_run(
                    session, run=run, state=RunState.FINISHED, at=run.last_report_at, now=run.last_report_at
                )


def prune(url: str, *more: str) -> str:
    done = CliRunner().invoke(app, ["prune", "--days", "90", "--url", url, *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_runs_that_ended_long_ago_are_pruned_whole_and_written_down(engine: sa.Engine, database_url: str) -> None:
    runs_of_three_ages(engine)
    assert prune(database_url, "--dry-run") == "would delete old (gpt, finished)\n"
    with reading(engine) as session:
        assert len(queries.runs(session)) == 3
    assert prune(database_url) == "deleted old (gpt, finished)\n"
    assert prune(database_url) == "nothing is that old\n"
    with reading(engine) as session:
        kept = {run.pk for run in queries.runs(session)}
        assert {run.id for run in queries.runs(session)} == {"young", "going"}
        assert [(line.action, line.run) for line in access.trail(session)] == [("delete", "old")]
        for table in Base.metadata.sorted_tables:
            if "run_pk" in table.columns:
                assert set(session.scalars(sa.select(table.c.run_pk))) <= kept, table.name


def test_a_database_that_cannot_be_used_is_one_sentence() -> None:
    done = CliRunner().invoke(app, ["prune", "--days", "1", "--url", "sqlite:////proc/nowhere/x.db"])
    assert done.exit_code == 2
    assert "/proc/nowhere" in done.output
