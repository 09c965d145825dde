"""Archived values come back into the store, verified, and their files go."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import commands, queries
from db.archive import blocks, inventory, unarchiving
from db.archive.unarchiving import CannotBringBack
from db.records import access
from db.steps import rollups, writer
from db.steps.archived import places
from db.steps.archived.places import Place, PlaceError
from db.store.engine import reading, writing
from tests.db.archive.stored import (
    Killed,
    archive,
    assert_same,
    die,
    flipped,
    parquet_files,
    store_run,
    unarchive,
    value_bytes,
    whole,
)
from tests.db.seed import add_steps


def test_values_come_back_to_the_last_bit_and_the_files_go(engine: sa.Engine, tmp_path: Path) -> None:
    before = store_run(engine)
    files = archive(engine, Place(str(tmp_path)))
    values = value_bytes(engine)
    assert unarchive(engine) == files
    assert value_bytes(engine) > values
    assert_same(before, whole(engine))
    assert parquet_files(tmp_path) == []
    assert unarchive(engine) == []
    with reading(engine) as session:
        assert [line.action for line in access.trail(session)] == ["unarchive steps", "archive steps"]
        assert inventory.summary(session) is None
    archive(engine, Place(str(tmp_path)))
    assert_same(before, whole(engine))


def test_blocks_with_late_steps_and_values_are_not_overwritten(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    """They were written anew in the store; the file has their old values."""
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path)))
    with writing(sqlite_engine) as session:
        run = commands.lock_run(session, run_id="r1")
        assert run is not None
        first = queries.segments(session, run=run)[0]
        numbers = rollups.metric_numbers(session, run_pk=run.pk)
        add_steps(session, run, first, [300])
        late = {3: {"loss": 99.0, "new": 1.5}}
        writer.complete_steps(session, run=run, segment=first, values=late, numbers=numbers)
    changed = whole(sqlite_engine)
    assert changed[0].metrics["loss"].values[3] == 99.0
    unarchive(sqlite_engine)
    assert_same(changed, whole(sqlite_engine))


@pytest.mark.parametrize("moment", ["before the commit", "in the commit", "after the commit"])
def test_killed_at_any_moment_nothing_is_lost_or_twice(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before = store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path)))

    put_back = blocks.put_back

    def after(*args: object, **named: object) -> None:
        put_back(*args, **named)  # type: ignore[arg-type]
        raise Killed

    where: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
        "before the commit": lambda patch: patch.setattr(unarchiving, "bring_back", die),
        "in the commit": lambda patch: patch.setattr(blocks, "put_back", after),
        "after the commit": lambda patch: patch.setattr(Place, "remove", die),
    }
    with monkeypatch.context() as patch:
        where[moment](patch)
        with pytest.raises(Killed):
            unarchive(sqlite_engine)
    assert_same(before, whole(sqlite_engine))
    unarchive(sqlite_engine)
    inventory.remove_left_over(sqlite_engine)
    assert_same(before, whole(sqlite_engine))
    assert parquet_files(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "why"),
    [("flipped", "its checksum is not"), ("cut", "its checksum is not"), ("missing", "there is no file")],
)
def test_a_file_that_is_damaged_or_missing_stays_archived_and_says_so(
    sqlite_engine: sa.Engine, tmp_path: Path, damage: str, why: str
) -> None:
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path)))
    file = parquet_files(tmp_path)[0]
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(flipped(content) if damage == "flipped" else content[: len(content) // 2])
    (problem,) = inventory.problems(sqlite_engine)
    with pytest.raises(CannotBringBack, match=why) as failed:
        unarchive(sqlite_engine)
    for sentence in (problem, str(failed.value)):
        assert "\n" not in sentence
        assert "r1" in sentence
        assert str(file) in sentence
    file.write_bytes(content)
    assert inventory.problems(sqlite_engine) == []
    unarchive(sqlite_engine)


def test_a_file_that_cannot_be_removed_is_removed_later(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path)))

    def refuse(self: places.Place, name: str) -> None:
        raise PlaceError("the credentials have expired")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "remove", refuse)
        assert len(unarchive(sqlite_engine)) == 2
    assert len(parquet_files(tmp_path)) == 2
    assert inventory.remove_left_over(sqlite_engine).num_files == 2
    assert parquet_files(tmp_path) == []


def test_a_run_that_is_deleted_while_its_file_is_read_is_passed_over(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_run(sqlite_engine)
    archive(sqlite_engine, Place(str(tmp_path)))
    read = Place.read

    def read_too_late(place: Place, name: str) -> bytes:
        with writing(sqlite_engine) as session:
            pks = [pk for pk, _ in commands.lock_runs(session, run_ids=["r1"]).values()]
            commands.delete_runs(session, run_pks=pks)
        inventory.remove_left_over(sqlite_engine)
        return read(place, name)

    monkeypatch.setattr(Place, "read", read_too_late)
    assert unarchive(sqlite_engine) == []
