"""`python -m db pack` makes blocks of what an earlier release stored, and says what it did."""

import time

import sqlalchemy as sa
from typer.testing import CliRunner

from db import commands, frames, queries
from db.cli.app import app
from db.models import Feature
from db.store import features
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import NOW, add_run, add_segment, add_steps


def pack(engine: sa.Engine, *options: str) -> tuple[int, str]:
    url = engine.url.render_as_string(hide_password=False)
    done = CliRunner().invoke(app, ["pack", "--url", url, *options])
    return done.exit_code, done.output


def test_a_store_of_an_earlier_release_is_packed_once_an_operator_enables_it(engine: sa.Engine) -> None:
    with writing(engine) as session:
        session.execute(sa.delete(Feature))
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(5000))
        add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 103))
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=NOW, now=NOW)
        before = frames.steps(session, run=run)
    code, output = pack(engine)
    assert (code, "python -m db pack --enable" in output) == (2, True)
    code, output = pack(engine, "--enable")
    assert output.splitlines() == [
        "steps of new segments are stored in blocks from now on",
        "packed 5,000 steps of r1",
        "filled in the newest values of r1 for lists and searches",
    ]
    assert pack(engine) == (0, "nothing is left to pack\n")
    with reading(engine) as session:
        assert features.is_enabled(session, features.BLOCKS)
        assert frames.steps(session, run=run).equals(before)
        assert [one.num_packed for one in queries.segments(session, run=run)] == [5000, 0]
        assert session.scalar(sa.text("SELECT count(*) FROM steps")) == 3


def test_the_last_rows_of_a_run_that_was_killed_are_packed_and_those_of_one_that_reports_are_not(
    engine: sa.Engine,
) -> None:
    with writing(engine) as session:
        for run_id in ("killed", "alive"):
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(100))
        commands.lock_runs(session, run_ids=["alive"], last_report_at=time.time())
    assert pack(engine) == (0, "packed 100 steps of killed\n")
    assert pack(engine) == (0, "nothing is left to pack\n")
