"""`python -m db pack` makes blocks of rows that no report packs, and says what it did."""

import time

import sqlalchemy as sa
from typer.testing import CliRunner

from db import commands
from db.cli.app import app
from db.store.engine import writing
from tests.db.seed import add_run, add_segment, add_steps


def pack(engine: sa.Engine, *options: str) -> tuple[int, str]:
    url = engine.url.render_as_string(hide_password=False)
    done = CliRunner().invoke(app, ["pack", "--url", url, *options])
    return done.exit_code, done.output


def test_the_last_rows_of_a_run_that_was_killed_are_packed_and_those_of_one_that_reports_are_not(
    sqlite_engine: sa.Engine,
) -> None:
    with writing(sqlite_engine) as session:
        for run_id in ("killed", "alive"):
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(100))
        commands.lock_runs(session, run_ids=["alive"], last_report_at=time.time())
    assert pack(sqlite_engine) == (0, "packed 100 steps of killed\n")
    assert pack(sqlite_engine) == (0, "nothing is left to pack\n")
