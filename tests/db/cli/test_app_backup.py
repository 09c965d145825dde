"""A backup is one moment of the store, taken while it is written to, and a store of its own afterwards."""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from db import commands, migrate, queries
from db.cli.app import app
from db.lineage import StepRange
from db.steps import reader
from db.store.engine import create_engine, reading, writing
from tests import postgres
from tests.db.seed import add_run, add_segment, add_steps


def write_until(over: threading.Event, engine: sa.Engine, started: threading.Event) -> None:
    """A run that grows by ten steps a transaction."""
    with writing(engine) as session:
        add_segment(session, add_run(session), "a")
    first = 0
    while not over.is_set():
        with writing(engine) as session:
            run = commands.lock_run(session, run_id="r1")
            assert run is not None
            add_steps(session, run, queries.segments(session, run=run)[0], range(first, first + 10))
        first += 10
        if first == 50:
            started.set()


def while_written(engine: sa.Engine, do: Callable[[], None]) -> int:
    """Do it in the middle of writing: the steps that there were in the end."""
    over, started = threading.Event(), threading.Event()
    writer = threading.Thread(target=write_until, args=(over, engine, started))
    writer.start()
    assert started.wait(60)
    do()
    over.set()
    writer.join()
    return num_steps(engine)


def num_steps(engine: sa.Engine) -> int:
    """Steps stored; every transaction is there whole or not at all."""
    with reading(engine) as session:
        (run,) = queries.runs(session)
        (segment,) = queries.segments(session, run=run)
        stored = len(reader.read_steps(session, run_pk=run.pk, step_range=StepRange(0, 0, None)))
        assert stored == segment.num_steps == (segment.last_step or 0) + 1
    return segment.num_steps


def check_restored(url: str, at_most: int) -> None:
    engine = create_engine(url)
    assert migrate.drift(engine) is None
    assert 50 <= num_steps(engine) <= at_most
    with writing(engine) as session:
        run = commands.lock_run(session, run_id="r1")
        assert run is not None
        add_steps(session, run, queries.segments(session, run=run)[0], range(10**6, 10**6 + 10))
    engine.dispose()


def test_a_sqlite_store_is_backed_up_while_it_is_written_to(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    url, copy = sqlite_engine.url.render_as_string(), tmp_path / "copy.db"
    answers = []

    def back_up() -> None:
        answers.append(CliRunner().invoke(app, ["backup", "-o", str(copy), "--url", url]))

    written = while_written(sqlite_engine, back_up)
    assert answers[0].exit_code == 0, answers[0].output
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    check_restored(f"sqlite:///{copy}", written)


@pytest.mark.needs("postgresql")
def test_a_postgresql_store_is_dumped_while_it_is_written_to_and_restored(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    admin = create_engine(postgres_server.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in ("backed_up", "restored"):
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine, dump = create_engine(postgres_server.url("backed_up")), tmp_path / "store.dump"
    migrate.upgrade(engine)

    def run(program: str, *arguments: str) -> None:
        command = [str(postgres_server.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    written = while_written(engine, lambda: run("pg_dump", "-Fc", f"--file={dump}", postgres_server.url("backed_up")))
    run("pg_restore", "--exit-on-error", f"--dbname={postgres_server.url('restored')}", str(dump))
    check_restored(postgres_server.url("restored"), written)
    engine.dispose()
    admin.dispose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:secret@host/store", "pg_dump"),
        ("sqlite:///nowhere/x.db", "there is no store at nowhere/x.db"),
        ("sqlite://", "there is no store"),
    ],
)
def test_a_store_that_cannot_be_backed_up_is_one_sentence(tmp_path: Path, url: str, words: str) -> None:
    done = CliRunner().invoke(app, ["backup", "-o", str(tmp_path / "copy.db"), "--url", url])
    assert done.exit_code == 2
    assert words in done.output
    assert "secret" not in done.output
    assert done.output.count("\n") == 1


def test_an_existing_file_is_not_overwritten(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    done = CliRunner().invoke(app, ["backup", "-o", str(kept), "--url", sqlite_engine.url.render_as_string()])
    assert (done.exit_code, kept.read_text()) == (2, "mine")
