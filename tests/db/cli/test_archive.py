"""`python -m db archive`, `unarchive`, `check` and `prune` as a user runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from db.cli.app import app
from db.models import BlockValues, Run
from db.steps.archived.files import ArchivedFile, FileState
from db.steps.archived.places import Place, PlaceError
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests import object_store
from tests.db.archive.stored import add_ended_run, assert_same, parquet_files, store_run, value_bytes, whole
from tests.waiting import wait_for

DAY = 86_400.0


def run_command(engine: sa.Engine, *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    url = engine.url.render_as_string(hide_password=False)
    done = CliRunner().invoke(app, [*words, "--url", url])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def archive_all(engine: sa.Engine, place: Path) -> tuple[int, str, str]:
    """Archive the runs that are older than a day."""
    return run_command(engine, "archive", "--older-than", "1d", "--to", str(place))


def add_two_ages(engine: sa.Engine) -> None:
    with writing(engine) as session:
        for run_id, days in (("old", 40), ("young", 2)):
            add_ended_run(session, run_id, at=time.time() - days * DAY)


@pytest.fixture
def two_ages(sqlite_engine: sa.Engine) -> sa.Engine:
    """A store with the runs `old`, of 40 days ago, and `young`, of two days ago."""
    add_two_ages(sqlite_engine)
    return sqlite_engine


def test_old_runs_are_archived_brought_back_and_said_so(engine: sa.Engine, tmp_path: Path) -> None:
    add_two_ages(engine)
    before = {run: whole(engine, run) for run in ("old", "young")}
    where = ("--older-than", "30d", "--to", str(tmp_path / "place"))
    code, out, _ = run_command(engine, "archive", *where, "--dry-run")
    assert (code, out) == (0, "would archive old: up to 1,500 steps\n")
    assert parquet_files(tmp_path) == []
    code, out, _ = run_command(engine, "archive", *where)
    assert (code, out.startswith("archived old: 1,021 steps in 2 files, 0.0 MB"), out.count("\n")) == (0, True, 1)
    assert run_command(engine, "archive", *where)[:2] == (0, "there are no steps to archive\n")
    code, out, _ = run_command(engine, "check")
    assert (code, f"archived: 1,021 steps of 1 run in 2 files, 0.0 MB, at file://{tmp_path}/place" in out) == (0, True)
    code, out, _ = run_command(engine, "unarchive", "--all", "--json")
    assert code == 0
    report = json.loads(out)
    (one,) = report["runs"]
    assert (one["run"], one["outcome"], one["steps"], one["files"]) == ("old", "brought back", 1021, 2)
    nothing: dict[str, Any] = {"runs": [], "problems": [], "error": None}
    assert report | {"runs": []} == nothing | {"removed_files": 0, "left_files": 0}
    assert parquet_files(tmp_path) == []
    assert "archived" not in run_command(engine, "check")[1]
    for run, blocks in before.items():
        assert_same(blocks, whole(engine, run))


def test_runs_are_named_one_by_one_whatever_their_age(two_ages: sa.Engine, tmp_path: Path) -> None:
    code, out, _ = run_command(two_ages, "archive", "young", "--to", str(tmp_path))
    assert (code, out.startswith("archived young: ")) == (0, True)
    code, out, _ = run_command(two_ages, "unarchive", "young", "--dry-run")
    assert (code, out) == (0, "would bring back young: 1,021 steps\n")


def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(sqlite_engine: sa.Engine) -> None:
    store_run(sqlite_engine)
    for words, sentence in {
        "archive --to x": "say which runs: --older-than 30d, or their ids",
        "archive --older-than soon --to x": "'soon' is no age: give days or hours, such as 30d or 12h",
        "archive r9 --to x": "there is no run 'r9'",
        "archive r1 --to s4://x": "s4://x cannot be opened: s4:// is not supported; use a folder, s3://",
        "archive r1 --to memory://x": "'memory://x' is no place for archived steps: memory keeps no files",
        "unarchive": "say which runs: their ids, or --all",
        "unarchive r1 --all": "say which runs: their ids, or --all",
    }.items():
        code, out, err = run_command(sqlite_engine, *words.split())
        assert (code, out, err.count("\n"), err.startswith(f"db: {sentence}")) == (2, "", 1, True), err


def test_running_runs_are_never_archived(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with writing(sqlite_engine) as session:
        add_ended_run(session, at=1.0)
        session.execute(sa.update(Run).values(state=RunState.RUNNING))
    for which in (["r1"], ["--older-than", "1d"]):
        assert (
            run_command(sqlite_engine, "archive", *which, "--to", str(tmp_path))[1] == "there are no steps to archive\n"
        )


def test_a_place_that_fails_says_so_and_what_was_done(
    two_ages: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Place.write

    def fill(self: Place, name: str, content: bytes) -> None:
        if len(parquet_files(tmp_path)) == 2:
            raise PlaceError(f"cannot write {self.url}/{name}: No space left on device")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", fill)
        code, out, err = archive_all(two_ages, tmp_path)
    assert (code, out.count("archived old: 1,021 steps"), err.count("\n")) == (2, 1, 1)
    assert "No space left on device" in err
    code, out, _ = archive_all(two_ages, tmp_path)
    assert (code, out.startswith("archived young: 1,021 steps")) == (0, True)


@pytest.mark.parametrize("has_steps", [True, False])
def test_a_place_that_cannot_be_written_is_refused_before_the_store_knows_of_a_file(
    sqlite_engine: sa.Engine, tmp_path: Path, has_steps: bool
) -> None:
    (tmp_path / "file").write_text("no folder")
    store_run(sqlite_engine, num_steps=1500 if has_steps else 10)
    code, out, err = run_command(sqlite_engine, "archive", "r1", "--to", str(tmp_path / "file" / "x"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Not a directory" in err
    with reading(sqlite_engine) as session:
        assert session.scalars(sa.select(ArchivedFile)).all() == []


def test_an_unfinished_file_at_a_place_that_is_away_is_removed_once_it_is_back(
    two_ages: sa.Engine, tmp_path: Path
) -> None:
    assert run_command(two_ages, "archive", "old", "--to", str(tmp_path / "place"))[0] == 0
    begun_file(two_ages, f"file://{tmp_path}/place")
    (tmp_path / "place").rename(tmp_path / "away")
    code, out, err = run_command(two_ages, "archive", "young", "--to", str(tmp_path / "other"))
    assert (code, "1 file is to be removed and could not be" in out, "is it mounted" in err) == (2, True, True)
    (tmp_path / "away").rename(tmp_path / "place")
    code, out, err = run_command(two_ages, "unarchive", "--all")
    assert (code, err, "removed 1 file that nothing needed any more" in out) == (0, "", True)
    with reading(two_ages) as session:
        assert session.scalars(sa.select(ArchivedFile)).all() == []


def begun_file(engine: sa.Engine, place: str) -> None:
    """A row of an archiving that ended before its file was kept."""
    row = {"run": "old", "state": FileState.WRITING, "place": place, "name": "old/x/1.parquet", "segment": 0}
    row |= {"first_step": 0, "last_step": 9, "num_steps": 10, "num_bytes": 1, "sha256": "", "changed_at": 0.0}
    with writing(engine) as session:
        session.add(ArchivedFile(**row))


def test_damaged_and_missing_files_are_found_by_a_check(two_ages: sa.Engine, tmp_path: Path) -> None:
    archive_all(two_ages, tmp_path)
    assert run_command(two_ages, "check", "--verify")[0] == 0
    first, second, *_ = parquet_files(tmp_path)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    code, _, err = run_command(two_ages, "check", "--verify")
    lines = err.splitlines()
    assert (code, len(lines)) == (1, 2)
    assert ("are missing" in lines[0], str(first) in lines[0]) == (True, True)
    assert ("are damaged" in lines[1], str(second) in lines[1]) == (True, True)


def test_a_damaged_block_keeps_no_other_run_from_being_archived(two_ages: sa.Engine, tmp_path: Path) -> None:
    with writing(two_ages) as session:
        session.execute(sa.update(BlockValues).where(BlockValues.run_pk == 1).values(values=b"\x01cut"))
    code, out, err = archive_all(two_ages, tmp_path)
    assert [line.partition(":")[0] for line in out.splitlines()] == ["archived young"]
    assert (code, err.count("\n"), "a block of run 'old', segment 0, steps 0 to " in err) == (2, 1, True)
    assert run_command(two_ages, "export", "old", "-o", str(tmp_path / "old.parquet"))[::2] == (2, err)


def test_a_damaged_file_keeps_no_other_run_from_being_brought_back(two_ages: sa.Engine, tmp_path: Path) -> None:
    before = whole(two_ages, "young")
    archive_all(two_ages, tmp_path)
    parquet_files(tmp_path / "old")[1].unlink()
    code, out, err = run_command(two_ages, "unarchive", "--all")
    brought_back = [line.partition(" in ")[0] for line in out.splitlines()]
    assert brought_back == ["brought back old: 511 steps", "brought back young: 1,021 steps"]
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("db: the steps 768 to ")
    assert "of the run 'old' stay archived: there is no file " in err
    assert_same(before, whole(two_ages, "young"))


def test_a_place_that_is_away_is_one_sentence_whatever_it_keeps(two_ages: sa.Engine, tmp_path: Path) -> None:
    archive_all(two_ages, tmp_path / "place")
    (tmp_path / "place").rename(tmp_path / "away")
    (tmp_path / "place").mkdir()
    for words, expected in ((["check", "--verify"], 1), (["unarchive", "--all"], 2)):
        code, _, err = run_command(two_ages, *words)
        assert (code, err.count("\n"), "is it mounted? The folder has no file lossguard-archive.txt" in err) == (
            expected,
            1,
            True,
        )


def test_pruned_runs_lose_their_files_now_or_later(two_ages: sa.Engine, tmp_path: Path) -> None:
    place = tmp_path / "place"
    archive_all(two_ages, place)
    place.rename(tmp_path / "away")
    code, out, err = run_command(two_ages, "prune", "--days", "30")
    deleted, space = out.splitlines()
    assert (code, deleted, "is it mounted" in err) == (2, "deleted old (gpt, finished)", True)
    assert space.startswith("the store takes ")
    (tmp_path / "away").rename(place)
    assert run_command(two_ages, "prune", "--days", "30")[0] == 0
    assert [path.parts[-3] for path in parquet_files(place)] == ["young", "young"]


HANG = f"""
CREATE TRIGGER hang BEFORE UPDATE OF state ON archived_files
WHEN (SELECT count(*) FROM archived_files WHERE state = 'kept') = 2
BEGIN SELECT count(*) FROM {", ".join(f"sqlite_master AS t{number}" for number in range(10))}; END
"""
"""Whoever wants to keep a third file is at it for ever."""


@pytest.mark.system
@pytest.mark.slow(5)
@pytest.mark.needs("moto_server")
def test_a_kill_and_expired_credentials_in_the_middle_lose_nothing_in_an_object_store(
    sqlite_engine: sa.Engine, bucket: str, object_store_server: object_store.Server
) -> None:
    """One process is killed while it archives, the next call loses its credentials, and the one after that finishes."""
    with writing(sqlite_engine) as session:
        for number in range(6):
            add_ended_run(session, f"r{number}", at=1.0)
    before = {f"r{number}": whole(sqlite_engine, f"r{number}") for number in range(6)}
    full = value_bytes(sqlite_engine)
    words = ["archive", "--older-than", "1d", "--to", f"{bucket}/steps"]
    command = [sys.executable, "-m", "db", *words, "--url", str(sqlite_engine.url)]

    def num_kept() -> int:
        with sqlite_engine.connect() as connection:
            return connection.scalar(sa.text("SELECT count(*) FROM archived_files WHERE state = 'kept'")) or 0

    with sqlite_engine.begin() as connection:
        connection.execute(sa.text(HANG))
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: num_kept() > 1, seconds=60, what="two files are archived")
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    with sqlite_engine.begin() as connection:  # its turn ends by itself after two minutes
        connection.execute(sa.text("DELETE FROM leaders"))
        connection.execute(sa.text("DROP TRIGGER hang"))
    object_store_server.refuse_requests(after=7)
    code, _, err = run_command(sqlite_engine, *words)
    assert (code, err.count("\n"), "cannot " in err) == (2, 1, True)
    object_store_server.accept_requests()
    code, out, err = run_command(sqlite_engine, *words, "--json")
    assert (code, err) == (0, "")
    report: dict[str, Any] = json.loads(out)
    assert (report["error"], report["left_files"]) == (None, 0)
    assert (num_kept(), value_bytes(sqlite_engine) < full * 0.6) == (12, True)
    for run, blocks in before.items():
        assert_same(blocks, whole(sqlite_engine, run))
    assert run_command(sqlite_engine, "check", "--verify")[0] == 0
    assert run_command(sqlite_engine, "unarchive", "--all")[0] == 0
    for run, blocks in before.items():
        assert_same(blocks, whole(sqlite_engine, run))
