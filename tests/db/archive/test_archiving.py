"""Values move from the store to files: verified, one transaction a file, nothing lost whatever happens in between."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.archive import archiving, blocks, inventory
from db.archive.archiving import RunChanged
from db.models import Run
from db.records import access
from db.steps import rollups, writer
from db.steps.archived import files, parquet
from db.steps.archived.files import ArchivedFile, FileState
from db.steps.archived.places import Place, PlaceError
from db.steps.step_block import StepBlock
from db.steps.writer import complete_steps
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests.db.archive.stored import (
    Killed,
    archive,
    assert_same,
    die,
    flipped,
    parquet_files,
    store_run,
    value_bytes,
    whole,
)
from tests.db.seed import add_segment, add_steps, end_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "place"


def test_archived_steps_read_as_before_to_the_last_bit(engine: sa.Engine, folder: Path) -> None:
    before, values = store_run(engine), value_bytes(engine)
    written = archive(engine, Place(str(folder)))
    names = [path.name for path in parquet_files(folder)]
    assert names == ["0000-000000000000.parquet", "0000-000000000768.parquet"]
    assert sum(one.num_steps for one in written) == 1021, "not the buckets of the fork and of the end"
    assert sum(map(len, before)) == 1540
    assert value_bytes(engine) < values * 0.6
    assert_same(before, whole(engine))
    with reading(engine) as session:
        assert [(line.action, line.run) for line in access.trail(session)] == [("archive steps", "r1")]
        assert {file.state for file in session.scalars(sa.select(ArchivedFile))} == {FileState.KEPT}
    assert archive(engine, Place(str(folder))) == []


@pytest.mark.parametrize(
    "moment", ["before the file", "half of the file", "before the check", "before the commit", "in the commit"]
)
def test_killed_at_any_moment_nothing_is_lost_or_twice_and_the_next_call_finishes(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before = store_run(sqlite_engine)

    with monkeypatch.context() as patch:
        dying(patch, moment)
        with pytest.raises(Killed):
            archive(sqlite_engine, Place(str(folder)))
    assert_same(before, whole(sqlite_engine))
    leftovers = len(parquet_files(folder))
    assert leftovers == (0 if moment == "before the file" else 1)
    removed = inventory.remove_left_over(sqlite_engine, unfinished=True)
    assert (removed.num_files, removed.num_left, parquet_files(folder)) == (1, 0, [])
    archive(sqlite_engine, Place(str(folder)))
    assert_same(before, whole(sqlite_engine))
    assert len(parquet_files(folder)) == 2
    assert inventory.problems(sqlite_engine) == []


def dying(patch: pytest.MonkeyPatch, moment: str) -> None:
    """Raise where a kill would end the process."""
    write = Place.write

    def half(self: Place, name: str, content: bytes) -> None:
        write(self, name, content[: len(content) // 2])
        raise Killed

    put_away: Callable[..., None] = blocks.put_away

    def after_deletion(*args: object, **named: object) -> None:
        put_away(*args, **named)
        raise Killed

    where: dict[str, Callable[[], None]] = {
        "before the file": lambda: patch.setattr(Place, "write", die),
        "half of the file": lambda: patch.setattr(Place, "write", half),
        "before the check": lambda: patch.setattr(archiving, "check_copy", die),
        "before the commit": lambda: patch.setattr(archiving, "_commit", die),
        "in the commit": lambda: patch.setattr(blocks, "put_away", after_deletion),
    }
    where[moment]()


@pytest.mark.parametrize("fault", ["full", "cut", "flipped"])
def test_a_place_that_fails_or_lies_keeps_the_steps_in_the_store(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    before, values = store_run(sqlite_engine), value_bytes(sqlite_engine)
    write = Place.write

    def faulty(self: Place, name: str, content: bytes) -> None:
        if fault == "full":
            write(self, name, content[:100])
            raise PlaceError(f"cannot write {self.url}/{name}: No space left on device")
        write(self, name, content[:-20] if fault == "cut" else flipped(content))

    monkeypatch.setattr(Place, "write", faulty)
    with pytest.raises(PlaceError, match=r"^cannot write|was read back with|is no whole") as failed:
        archive(sqlite_engine, Place(str(folder)))
    assert "\n" not in str(failed.value)
    assert_same(before, whole(sqlite_engine))
    assert value_bytes(sqlite_engine) >= values
    assert parquet_files(folder) == []
    with reading(sqlite_engine) as session:
        assert session.scalars(sa.select(ArchivedFile)).all() == []


@pytest.mark.parametrize("change", ["resumed", "a late step", "deleted", "deleted before it is written"])
def test_a_run_that_changes_while_its_file_is_written_keeps_its_steps(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    store_run(sqlite_engine)
    write, encode = Place.write, parquet.encode

    def change_run() -> None:
        with writing(sqlite_engine) as session:
            run = ended(session)
            if change == "resumed":
                run.state = RunState.RUNNING
            elif change == "a late step":
                add_steps(session, run, queries.segments(session, run=run)[0], [300])
            else:
                commands.delete_run(session, run=run)

    def change_after(self: Place, name: str, content: bytes) -> None:
        write(self, name, content)
        change_run()

    def change_before(block: StepBlock) -> bytes:
        change_run()
        return encode(block)

    with monkeypatch.context() as patch:
        if change == "deleted before it is written":
            patch.setattr(parquet, "encode", change_before)
        else:
            patch.setattr(Place, "write", change_after)
        with pytest.raises(RunChanged):
            archive(sqlite_engine, Place(str(folder)))
    assert parquet_files(folder) == []
    if change == "a late step":
        before = whole(sqlite_engine)
        archive(sqlite_engine, Place(str(folder)))
        assert_same(before, whole(sqlite_engine))
        assert sum(map(len, before)) == 1541


def ended(session: Session) -> Run:
    """The run r1, locked."""
    run = commands.lock_run(session, run_id="r1")
    assert run is not None
    return run


def test_a_process_that_was_taken_for_a_dead_one_leaves_no_file(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it stood still, another one took the turn and removed what seemed to be left over."""
    store_run(sqlite_engine)
    write = Place.write

    def late(place: Place, name: str, content: bytes) -> None:
        inventory.remove_left_over(sqlite_engine, unfinished=True)
        write(place, name, content)

    before = whole(sqlite_engine)
    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", late)
        with pytest.raises(archiving.Busy, match="took this archiving for a dead one"):
            archive(sqlite_engine, Place(str(folder)))
    assert parquet_files(folder) == []
    assert_same(before, whole(sqlite_engine))


def test_a_file_that_is_committed_while_others_are_removed_is_kept(
    sqlite_engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal listed it while it was being written, and took longer for an earlier file than its turn lasts."""
    before = store_run(sqlite_engine)
    commit, remove, waiting = archiving._commit, Place.remove, list[tuple[Any, ...]]()

    def stand_still(_session: Session, *work: Any, turn: archiving.ArchiveLease, **how: Any) -> None:
        waiting.append((work, how))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archiving, "_commit", stand_still)
        for _ in range(2):
            with pytest.raises(Killed):
                archive(sqlite_engine, Place(str(folder)))

    def slow(place: Place, name: str) -> None:
        if waiting:
            work, how = waiting[-1]
            waiting.clear()
            with archiving.turn_taken(sqlite_engine) as ours, writing(sqlite_engine) as session:
                commit(session, *work, turn=ours, **how)
        remove(place, name)

    monkeypatch.setattr(Place, "remove", slow)
    assert inventory.remove_left_over(sqlite_engine, unfinished=True).num_files == 1
    assert len(parquet_files(folder)) == 1
    assert_same(before, whole(sqlite_engine))
    assert inventory.problems(sqlite_engine) == []


def test_two_calls_do_not_work_at_the_same_time(sqlite_engine: sa.Engine) -> None:
    with (
        archiving.turn_taken(sqlite_engine),
        pytest.raises(archiving.Busy, match="another process archives"),
        archiving.turn_taken(sqlite_engine),
    ):
        pass
    with archiving.turn_taken(sqlite_engine):
        pass


def test_a_resumed_run_goes_on_and_knows_its_archived_steps(sqlite_engine: sa.Engine, folder: Path) -> None:
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(folder)))
    with writing(sqlite_engine) as session:
        run = ended(session)
        run.state = RunState.RUNNING
        assert writer.known_steps(session, run=run, segment=0, steps=[0, 299, 300, 1503, 1504]) == {0, 299, 1503}
        add_steps(session, run, queries.segments(session, run=run)[0], [300])  # it was missing
        add_steps(session, run, add_segment(session, run, "c", fork_step=1000), range(1000, 1600))
    after = whole(sqlite_engine)
    assert [len(block) for block in after] == [1501, 40, 600]
    assert 300 in after[0].steps
    with writing(sqlite_engine) as session:
        end_run(session, ended(session))
    written = archive(sqlite_engine, Place(str(folder)))
    assert sum(one.num_steps for one in written) >= 512, "of the new segment, and the block with the late step"
    assert_same(after, whole(sqlite_engine))


def test_files_of_a_deleted_run_are_forgotten_only_once_they_are_removed(engine: sa.Engine, folder: Path) -> None:
    store_run(engine)
    archive(engine, Place(str(folder)))
    with writing(engine) as session:
        commands.delete_run(session, run=ended(session))
    away = folder.rename(folder.with_name("away"))
    removed = inventory.remove_left_over(engine)
    assert (removed.num_files, removed.num_left, len(removed.problems)) == (0, 2, 1)
    with writing(engine) as session:
        session.execute(sa.update(ArchivedFile).values(state=FileState.REMOVING))
    with pytest.raises(PlaceError, match="is it mounted"):  # a new folder would take the place of the one that is away
        archiving.prepare(engine, Place(str(folder)))
    away.rename(folder)
    removed = inventory.remove_left_over(engine)
    assert (removed.num_files, removed.num_left, removed.problems) == (2, 0, [])
    assert parquet_files(folder) == []
    with reading(engine) as session:
        assert files.left_over(session, unfinished=True) == []


def test_a_run_whose_archived_steps_get_late_values_again_and_again_is_to_be_archived(
    engine: sa.Engine, folder: Path
) -> None:
    store_run(engine)
    for value in (1.0, 2.0):
        archive(engine, Place(str(folder)))
        with writing(engine) as session:
            run = ended(session)
            numbers = rollups.metric_numbers(session, run_pk=run.pk)
            segment = queries.segments(session, run=run)[0]
            complete_steps(session, run=run, segment=segment, values={100: {"loss": value}}, numbers=numbers)
        with reading(engine) as session:
            assert list(inventory.candidates(session, ended_before=None)) == ["r1"]
