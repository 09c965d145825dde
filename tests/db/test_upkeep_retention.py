"""Projects keep their ended runs for as long as they say."""

import sqlalchemy as sa
from typer.testing import CliRunner

from db import commands, upkeep
from db.cli.app import app
from db.records import access
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import add_run

DAY = upkeep.SECONDS_PER_DAY


def ended(engine: sa.Engine, run_id: str, project: str, at: float) -> None:
    with writing(engine) as session:
        run = add_run(session, run_id, project=project)
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=at, now=at)
        run.last_report_at = at


def test_a_project_keeps_its_runs_as_long_as_it_says_and_the_others_as_long_as_the_command_says(
    sqlite_engine: sa.Engine,
) -> None:
    for project in ("short", "long", "forever", "other"):
        ended(sqlite_engine, f"{project}-old", project, 0.0)
        ended(sqlite_engine, f"{project}-new", project, 90.0 * DAY)
    with writing(sqlite_engine) as session:
        add_run(session, "running", project="short")
        for project, days in (("short", 5.0), ("long", 200.0), ("forever", None)):
            upkeep.set_days(session, project=project, days=days, now=1.0)

    def expired(days: float | None) -> set[str]:
        with reading(sqlite_engine) as session:
            return {run.id for run in upkeep.expired(session, days=days, now=100.0 * DAY)}

    assert expired(50.0) == {"short-old", "short-new", "other-old"}
    assert expired(None) == {"short-old", "short-new"}
    with writing(sqlite_engine) as session:
        assert upkeep.unset(session, project="short")
        assert not upkeep.unset(session, project="short")
    assert expired(None) == set()


def test_prune_follows_the_retention_that_a_person_set(sqlite_engine: sa.Engine) -> None:
    ended(sqlite_engine, "a", "trial", 0.0)
    ended(sqlite_engine, "b", "paper", 0.0)
    url = ("--url", str(sqlite_engine.url))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, *url])
        assert done.exit_code == 0, done.output
        return done.output

    assert run("retention", "set", "trial", "30") == "ended runs of trial are kept for 30 days\n"
    assert run("retention", "set", "paper", "forever") == "ended runs of paper are kept forever\n"
    assert run("retention", "list") == "paper: forever\ntrial: for 30 days\n"
    assert run("prune").startswith("deleted a (trial, finished)\nthe store takes ")
    assert run("prune", "--days", "1") == "nothing is that old\n"
    run("retention", "unset", "paper")
    assert run("prune", "--days", "1").startswith("deleted b (paper, finished)\nthe store takes ")
    with reading(sqlite_engine) as session:
        actions = [each.action for each in access.trail(session)]
    assert actions == ["delete", "retention", "delete", "retention", "retention"]


def test_a_retention_that_is_no_number_of_days_is_refused(sqlite_engine: sa.Engine) -> None:
    for days in ("soon", "-3", "0", "inf", "nan"):
        done = CliRunner().invoke(app, ["retention", "set", "--url", str(sqlite_engine.url), "--", "p", days])
        assert (done.exit_code, "is no retention: give a number of days" in done.output) == (2, True), days
