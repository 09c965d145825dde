"""The store's commands as a user runs them."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from db import commands, queries
from db.cli.app import app
from db.models import Base, Run
from db.records import access
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import add_run, add_segment, add_steps, end_run

DAY = 86_400


def runs_of_three_ages(engine: sa.Engine) -> None:
    """`old` ended 100 days ago, `young` yesterday, `going` never."""
    with writing(engine) as session:
        for run_id, age in (("old", 100), ("young", 1), ("going", 200)):
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(40))
            run.last_report_at = time.time() - age * DAY
            if run_id != "going":
                end_run(session, run, run.last_report_at)


def run_command(*given: str, store: sa.Engine | None = None) -> tuple[int, str]:
    """(exit code, output)"""
    done = CliRunner().invoke(app, [*given, *(["--url", str(store.url)] if store else [])])
    return done.exit_code, done.output


def prune(store: sa.Engine, *more: str) -> str:
    code, output = run_command("prune", "--days", "90", *more, store=store)
    assert code == 0, output
    return output


def test_runs_that_ended_long_ago_are_pruned_whole_and_audited(sqlite_engine: sa.Engine) -> None:
    runs_of_three_ages(sqlite_engine)
    assert prune(sqlite_engine, "--dry-run") == "would delete old (gpt, finished)\n"
    with reading(sqlite_engine) as session:
        assert len(queries.runs(session)) == 3
    deleted, space = prune(sqlite_engine).splitlines()
    assert deleted == "deleted old (gpt, finished)"
    assert re.fullmatch(r"the store takes \d+\.\d MB, \d+\.\d MB less than before", space)
    assert prune(sqlite_engine) == "nothing is that old\n"
    with reading(sqlite_engine) as session:
        kept = {run.pk for run in queries.runs(session)}
        assert {run.id for run in queries.runs(session)} == {"young", "going"}
        assert [(line.action, line.run) for line in access.trail(session)] == [("delete", "old")]
        for table in Base.metadata.sorted_tables:
            if "run_pk" in table.columns:
                assert set(session.scalars(sa.select(table.c.run_pk))) <= kept, table.name


def test_a_run_that_is_resumed_at_this_moment_is_neither_pruned_nor_listed_as_deleted(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_of_three_ages(sqlite_engine)
    lock = commands.lock_runs

    def resumed_first(session: Session, *, run_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        session.execute(sa.update(Run).values(state=RunState.RUNNING))
        return lock(session, run_ids=run_ids)

    monkeypatch.setattr(commands, "lock_runs", resumed_first)
    assert prune(sqlite_engine) == "nothing is that old\n"
    with reading(sqlite_engine) as session:
        assert len(queries.runs(session)) == 3


def test_an_age_that_is_not_a_number_deletes_nothing(sqlite_engine: sa.Engine) -> None:
    """To PostgreSQL every time is below NaN."""
    runs_of_three_ages(sqlite_engine)
    code, output = run_command("prune", "--days", "nan", store=sqlite_engine)
    assert (code, "--days" in output) == (2, True)
    with reading(sqlite_engine) as session:
        assert len(queries.runs(session)) == 3


def test_an_upgrade_is_undone_and_made_again(sqlite_engine: sa.Engine) -> None:
    for command, sentence in (
        (("downgrade", "base"), "the database is at revision base\n"),
        (("upgrade",), "the database is at the newest revision\n"),
        (("check",), "the database fits the code\n"),
    ):
        assert run_command(*command, store=sqlite_engine) == (0, sentence)


def test_a_revision_that_does_not_exist_is_one_sentence(sqlite_engine: sa.Engine) -> None:
    code, output = run_command("downgrade", "nonsense", store=sqlite_engine)
    assert (code, output.count("\n"), "nonsense" in output) == (2, 1, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [("sqlite:////proc/nowhere/x.db", "/proc/nowhere"), ("me:secret@host", "'...@host' is not a database URL")],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_its_password(url: str, words: str) -> None:
    code, output = run_command("prune", "--days", "1", "--url", url)
    assert (code, output.count("\n")) == (2, 1)
    assert words in output
    assert "secret" not in output


@pytest.mark.slow
def test_a_disk_on_which_nothing_can_be_written_is_named_as_a_cause(sqlite_engine: sa.Engine) -> None:
    sqlite_engine.dispose()
    command = [sys.executable, "-m", "db", "check", "--url", sqlite_engine.url.render_as_string()]
    full = ["bash", "-c", 'ulimit -f 0; exec "$@"', "-", *command]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "disk I/O error: is the disk full, or read-only?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_log_that_cannot_be_opened_is_one_sentence_with_a_cause(sqlite_engine: sa.Engine) -> None:
    sqlite_engine.dispose()
    Path(f"{sqlite_engine.url.database}-wal").mkdir()
    code, output = run_command("check", store=sqlite_engine)
    assert (code, output.count("\n")) == (2, 1)
    assert "unable to open database file: may this user write to it, and into its folder?" in output


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("export", "r"),
        ("import", "r.csv"),
        ("prune", "--days", "1"),
        ("downgrade", "0007"),
        ("backup", "-o", "b.db"),
    ],
)
def test_a_missing_store_is_one_sentence_and_none_is_created(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = (
        "db: there is no store at .lossguard/lossguard.db; name the store with --url or LOSSGUARD_DATABASE_URL; "
        "to create it, run: python -m db upgrade\n"
    )
    assert run_command(*command, "--url", "sqlite:///.lossguard/lossguard.db") == (2, output)
    assert not list(tmp_path.iterdir())


def test_a_run_goes_from_one_store_to_another_by_a_file(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_of_three_ages(sqlite_engine)
    monkeypatch.chdir(tmp_path)
    other = ["--url", f"sqlite:///{tmp_path}/other.db"]
    assert run_command("export", "old", store=sqlite_engine)[0] == 0
    assert run_command("import", "old.parquet", *other)[1].endswith("run: python -m db upgrade\n")
    run_command("upgrade", *other)
    assert run_command("import", "old.parquet", *other) == (0, "imported old (gpt, finished): 40 steps\n")
    assert run_command("check", *other) == (0, "the database fits the code\n")
    code, output = run_command("import", "old.parquet", *other)
    assert (code, output.count("\n")) == (2, 1)
    assert "the run 'old' exists" in output
    assert run_command("import", "old.parquet", "--as", "again", *other)[0] == 0
    store = create_engine(other[1])
    with reading(store) as session:
        assert {run.id for run in queries.runs(session)} == {"old", "again"}
        assert [(line.action, line.run) for line in access.trail(session)] == [("import", "again"), ("import", "old")]
    store.dispose()


def test_an_impossible_export_is_one_sentence_and_no_file(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_of_three_ages(sqlite_engine)
    monkeypatch.chdir(tmp_path)
    assert run_command("export", "nope", store=sqlite_engine) == (2, "db: there is no run 'nope'\n")
    assert run_command("export", "old", "-o", "old.xlsx", store=sqlite_engine)[1].startswith(
        "db: old.xlsx: the file name must end in"
    )
    Path("old.csv").write_text("mine", encoding="utf-8")
    assert run_command("export", "old", "-o", "old.csv", store=sqlite_engine)[1].startswith("db: old.csv exists")
    assert Path("old.csv").read_text(encoding="utf-8") == "mine"
    assert run_command("export", "old", "-o", "nowhere/old.csv", store=sqlite_engine) == (
        2,
        "db: there is no folder nowhere; create it, or name another file with -o\n",
    )
    code, output = run_command("import", "nowhere.csv", store=sqlite_engine)
    assert (code, output.startswith("db: there is no file nowhere.csv; name a file")) == (2, True)
    assert run_command("import", ".", store=sqlite_engine) == (2, "db: .: Is a directory\n")
    assert {path.name for path in tmp_path.iterdir()} - {"lossguard.db", "lossguard.db-wal", "lossguard.db-shm"} == {
        "old.csv"
    }


def test_an_import_keeps_the_collectors_limit_of_metrics(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,a,b,c\n0,1,2,3\n", encoding="utf-8")
    monkeypatch.setenv("LOSSGUARD_MAX_METRICS", "2")
    code, output = run_command("import", str(path), store=sqlite_engine)
    assert (code, output.count("\n"), "it has 3 metrics, but a run may have 2" in output) == (2, 1, True)
    assert run_command("import", str(path), "--max-metrics", "3", store=sqlite_engine)[0] == 0


def test_a_project_that_no_trainer_could_name_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n0,1\n", encoding="utf-8")
    code, output = run_command("import", str(path), "--project", "a\nb", store=sqlite_engine)
    assert (code, output.count("\n"), "cannot be the name of a project" in output) == (2, 1, True)


@pytest.mark.slow
def test_a_check_prints_one_line_whatever_it_finds(sqlite_engine: sa.Engine) -> None:
    script = [sys.executable, "-m", "db", "check", "--url", str(sqlite_engine.url)]
    fits = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (fits.returncode, fits.stdout, fits.stderr) == (0, "the database fits the code\n", "")
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DROP COLUMN kind")
    code, output = run_command("check", store=sqlite_engine)
    assert (code, output.count("\n")) == (1, 1)
    assert "kind" in output
