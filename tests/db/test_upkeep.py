"""Old runs go when nobody keeps them any longer, their space is given back, and last rows are packed."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from db import commands, queries, upkeep
from db.cli.app import app
from db.dialects import sqlite
from db.models import Base
from db.records import access
from db.store.engine import create_engine, reading, writing
from tests.db.seed import add_run, add_segment, add_steps, end_run

DAY = upkeep.SECONDS_PER_DAY


def ended(engine: sa.Engine, run_id: str, project: str, at: float) -> None:
    with writing(engine) as session:
        run = add_run(session, run_id, project=project)
        end_run(session, run, at)
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


def end_runs(engine: sa.Engine, num: int) -> None:
    for number in range(num):
        with writing(engine) as session:
            run = add_run(session, f"r{number}")
            add_steps(session, run, add_segment(session, run, "a"), range(20))
            end_run(session, run, 1.0)


def owners(engine: sa.Engine) -> set[int]:
    """The runs that any row belongs to."""
    with reading(engine) as session:
        tables = [table for table in Base.metadata.sorted_tables if "run_pk" in table.columns]
        return {pk for table in tables for pk in session.scalars(sa.select(table.c.run_pk)) if pk is not None}


def test_a_prune_that_is_killed_leaves_whole_runs_and_the_next_one_goes_on(engine: sa.Engine) -> None:
    end_runs(engine, 7)
    first = upkeep.prune(engine, days=1, now=1e9)
    gone = {next(first).pk}
    first.close()  # as if it were killed here
    left = {run.pk for run in upkeep.old_runs(engine, days=1, now=1e9)}
    assert not gone & left
    assert owners(engine) == left
    gone |= {run.pk for run in upkeep.prune(engine, days=1, now=1e9)}
    assert owners(engine) == set()
    with reading(engine) as session:
        assert sorted(line.run or "" for line in access.trail(session)) == [f"r{number}" for number in range(7)]


@pytest.mark.parametrize("change", ["reported", "kept longer"])
def test_a_run_that_is_no_longer_old_when_its_turn_comes_is_not_pruned(sqlite_engine: sa.Engine, change: str) -> None:
    end_runs(sqlite_engine, upkeep.BATCH_RUNS + 1)
    last = f"r{upkeep.BATCH_RUNS}"
    pruned = upkeep.prune(sqlite_engine, days=1, now=1e9)
    gone = [next(pruned).id]
    with writing(sqlite_engine) as session:
        if change == "reported":
            commands.lock_runs(session, run_ids=[last], last_report_at=1e9)
        else:
            upkeep.set_days(session, project="gpt", days=None, now=1e9)
    gone += [run.id for run in pruned]
    assert last not in gone
    with reading(sqlite_engine) as session:
        assert [run.id for run in queries.runs(session)] == [last]


def test_a_transaction_that_fails_deletes_nothing(sqlite_engine: sa.Engine) -> None:
    end_runs(sqlite_engine, 2)
    sa.event.listen(sqlite_engine, "before_cursor_execute", _fail_at_the_end)
    with pytest.raises(RuntimeError, match="killed"):
        list(upkeep.prune(sqlite_engine, days=1, now=1e9))
    assert len(owners(sqlite_engine)) == 2


def _fail_at_the_end(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    if statement.startswith("DELETE FROM runs"):
        raise RuntimeError("killed")


def fill(engine: sa.Engine) -> None:
    with writing(engine) as session:
        session.execute(sa.text("CREATE TABLE filler (text TEXT)"))
        for _ in range(300):
            session.execute(sa.text("INSERT INTO filler VALUES (:text)"), {"text": "x" * 10_000})


def test_the_space_of_deleted_rows_is_returned_and_the_command_says_how_much(engine: sa.Engine) -> None:
    fill(engine)
    before = upkeep.num_bytes(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    sentence = upkeep.compact(engine, before=before)
    assert sentence.startswith("the store takes ")
    assert sentence.endswith("MB less than before")
    if engine.dialect.name == "sqlite":
        assert upkeep.num_bytes(engine) < before - 2e6


def test_space_is_returned_many_pages_at_a_time_and_so_is_what_others_free_meanwhile(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(connection: sqlite3.Connection, name: str) -> int:
        reads.append(name)
        if reads.count("freelist_count") == 2:
            with writing(sqlite_engine) as session:
                session.execute(sa.text("DELETE FROM filler"))
        return pragma(connection, name)

    reads: list[str] = []
    fill(sqlite_engine)
    before = upkeep.num_bytes(sqlite_engine)
    with writing(sqlite_engine) as session:
        session.execute(sa.text("DELETE FROM filler WHERE rowid <= 100"))
    pragma = sqlite._pragma
    monkeypatch.setattr(sqlite, "_pragma", read)
    upkeep.compact(sqlite_engine, before=before)
    assert reads.count("freelist_count") == 3
    assert upkeep.num_bytes(sqlite_engine) < before - 2e6


def test_a_file_that_cannot_shrink_is_left_as_it_is(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    """SQLite's shell rebuilds a store from `.dump` without auto_vacuum."""
    with (
        closing(sqlite3.connect(str(sqlite_engine.url.database))) as store,
        closing(sqlite3.connect(tmp_path / "rebuilt.db")) as rebuilt,
    ):
        rebuilt.executescript("\n".join(store.iterdump()))
    engine = create_engine(f"sqlite:///{tmp_path / 'rebuilt.db'}")
    fill(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    assert upkeep.compact(engine, before=upkeep.num_bytes(engine)).endswith(", 0.0 MB less than before")
    engine.dispose()


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
